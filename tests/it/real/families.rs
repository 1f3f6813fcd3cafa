//! Real models that share a base: what base and head answer is what the whole model answers.

use super::{ask, fetched, requests};
use crate::daemon::{Daemon, Oracle, Settings, library, skipped};
use graftd::sched::reuse::Policy;

/// Two members of each of two families: a sentence encoder and pitch.
const MEMBERS: [&str; 4] = ["minilm_topic", "minilm_route", "pitch_note", "pitch_onset"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_families_answer_as_the_whole_models_in_process() {
    const TEST: &str = "real_families_answer_as_the_whole_models_in_process";
    let Some(library) = library(TEST) else { return };
    let Some(folder) = fetched() else { return skipped(TEST, "no models/real; type make models") };
    let mut settings = Settings::new(library.clone());
    settings.load.batch_bytes = 256 << 20;
    settings.load.sharing = Policy::Always;
    settings.sched.base_cache_bytes = 0;
    let daemon = Daemon::start("real_families", settings);
    let mut members = Vec::new();
    for name in MEMBERS {
        let file = folder.join(name).join("1/model.onnx");
        let spec = daemon.load(name, &file).await.unwrap_or_else(|why| panic!("{name}: {why}"));
        members.push((spec, file));
    }
    daemon.find_families(members.iter().map(|(spec, _)| spec.clone()).collect()).await;
    let families = daemon.repository.families();
    assert_eq!(families.members.len(), MEMBERS.len(), "{families:?}");
    let mut worst = 0.0_f64;
    for (spec, file) in &members {
        let requests = requests(spec, &Oracle::load(&library, file)).expect("a row it takes");
        let way = daemon.infer(spec, &requests[0].0).await.expect("an answer").route;
        assert!(way.contains("recompute"), "{}: {way}", spec.name);
        for (inputs, expected) in &requests {
            worst = worst.max(ask(&daemon, spec, inputs, expected).await);
        }
    }
    println!("real families: at most {worst:.1e} apart");
    for member in &families.members {
        println!("{}: {:.1e} when it was proved", member.label, member.difference);
    }
    daemon.assert_empty().await;
    assert_eq!(daemon.deaths(), 0);
}
