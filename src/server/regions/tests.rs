//! Regions on files of a temporary folder: whose they are, what they hold, and what happens when that changes.

use super::*;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;

const MINE: Tenant = Tenant(1);
const THEIRS: Tenant = Tenant(2);

struct Fixture {
    folder: tempfile::TempDir,
    regions: Regions,
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl Fixture {
    fn new(regions_max: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut regions = Regions::new(RegionLimits { regions_max, request_bytes_max: 1 << 20 });
        folder.path().clone_into(&mut regions.root);
        Self { folder, regions }
    }

    fn object(&self, name: &str, data: &[u8]) {
        fs::write(self.folder.path().join(name), data).expect("a file");
    }

    fn length(&self, name: &str, length: u64) {
        let file = OpenOptions::new().write(true).open(self.folder.path().join(name));
        file.and_then(|file| file.set_len(length)).expect("a file");
    }

    fn register(&self, name: &str, key: &str, part: (u64, u64)) -> Result<(), InferError> {
        self.regions.register(MINE, uid(), name, key, part)
    }

    fn find(&self, name: &str) -> Arc<Region> {
        self.regions.find(MINE, name).expect("it is registered")
    }
}

fn slice(offset: u64, byte_size: u64) -> RegionSlice {
    RegionSlice { region: "r".to_owned(), offset, byte_size }
}

fn pieces(data: &[&'static [u8]]) -> Vec<Bytes> {
    data.iter().map(|piece| Bytes::from_static(piece)).collect()
}

#[test]
fn parts_of_parts_are_read_and_written_where_they_are() {
    let fixture = Fixture::new(4);
    fixture.object("a", b"0123456789");
    fixture.register("r", "/a", (2, 6)).expect("it fits");
    let region = fixture.find("r");
    assert_eq!(region.read(&slice(0, 6)).as_deref(), Ok(b"234567".as_slice()));
    assert_eq!(region.read(&slice(3, 2)).as_deref(), Ok(b"56".as_slice()));
    assert_eq!(region.read(&slice(6, 0)).as_deref(), Ok(b"".as_slice()));
    region.write(&slice(1, 4), &pieces(&[b"a", b"", b"bc"])).expect("there is room");
    let data = fs::read(fixture.folder.path().join("a")).expect("a file");
    assert_eq!(data, b"012abc6789");
}

#[test]
fn what_is_not_within_the_region_or_too_small_is_refused_and_nothing_written() {
    let fixture = Fixture::new(4);
    fixture.object("a", &[7; 10]);
    fixture.register("r", "a", (2, 6)).expect("it fits");
    let region = fixture.find("r");
    for part in [slice(0, 7), slice(6, 1), slice(u64::MAX, 2), slice(1, u64::MAX)] {
        let error = region.read(&part).expect_err("it is not within");
        assert!(error.message.contains("not within shared memory region \"r\", which has 6 bytes"));
        assert!(region.write(&part, &[]).is_err());
    }
    let error = region.write(&slice(0, 4), &pieces(&[b"abc", b"de"])).expect_err("too small");
    assert!(error.message.contains("5 bytes are needed, but 4 were given"), "{error}");
    assert_eq!(fs::read(fixture.folder.path().join("a")).expect("a file"), [7; 10]);
}

#[test]
fn an_object_that_gets_shorter_is_an_error_with_numbers() {
    let fixture = Fixture::new(4);
    fixture.object("a", &[7; 10]);
    fixture.register("r", "/a", (0, 10)).expect("it fits");
    let region = fixture.find("r");
    fixture.length("a", 5);
    let error = region.read(&slice(0, 10)).expect_err("it is shorter");
    assert_eq!(
        error.message,
        "shared memory region \"r\": expected 10 bytes from byte 0 of the object on, but it has only 5 bytes; it \
         was shortened after it was registered"
    );
    assert!(region.write(&slice(0, 10), &pieces(&[b"0123456789"])).is_err());
    assert_eq!(region.read(&slice(0, 5)).as_deref(), Ok([7; 5].as_slice()));
    // A name that is gone, or another file's, is not followed again.
    fs::remove_file(fixture.folder.path().join("a")).expect("a file");
    fixture.object("a", &[9; 10]);
    assert_eq!(region.read(&slice(0, 5)).as_deref(), Ok([7; 5].as_slice()));
}

#[test]
fn registering_looks_at_bounds_names_and_limits() {
    let fixture = Fixture::new(2);
    fixture.object("a", &[0; 8]);
    let refused = |name: &str, key: &str, part| {
        let error = fixture.register(name, key, part).expect_err("a refusal");
        (error.kind, error.message)
    };
    let table: [(&str, &str, (u64, u64), &str); 10] = [
        ("r", "/a", (0, 9), "offset 0 and byte_size 9 end at 9, but the object has 8 bytes"),
        ("r", "/a", (8, 1), "end at 9, but the object has 8 bytes"),
        ("r", "/a", (u64::MAX, 2), "is not a part of anything"),
        ("r", "/a", (0, 0), "is not a part of anything; expected 1 or more"),
        ("r", "/b", (0, 1), "there is no such object of shared memory"),
        ("r", "/", (0, 1), "the key names no shared memory; expected '/' and"),
        ("r", "/../a", (0, 1), "the key names no shared memory"),
        ("r", "..", (0, 1), "the key names no shared memory"),
        ("r", "//a", (0, 1), "the key names no shared memory"),
        ("", "/a", (0, 1), "the name of a shared memory region has 0 bytes; expected 1 to 256"),
    ];
    for (name, key, part, words) in table {
        let (kind, message) = refused(name, key, part);
        assert_eq!(kind, ErrorKind::BadRequest, "{key}");
        assert!(message.contains(words), "{message}");
    }
    fixture.register("r", "/a", (0, 8)).expect("it fits");
    assert_eq!(refused("r", "/a", (0, 4)).0, ErrorKind::AlreadyExists);
    fixture.register("s", "/a", (4, 4)).expect("one object may be two regions");
    assert_eq!(refused("t", "/a", (0, 4)).0, ErrorKind::TooLarge);
    fixture.regions.unregister(MINE, "s");
    fixture.register("t", "/a", (0, 4)).expect("there is room again");
    let off = Fixture::new(0);
    off.object("a", &[0; 8]);
    assert_eq!(off.register("r", "/a", (0, 8)).expect_err("off").kind, ErrorKind::Unsupported);
}

#[test]
fn what_is_no_file_of_the_caller_is_not_there() {
    let fixture = Fixture::new(4);
    fixture.object("a", &[0; 8]);
    symlink(fixture.folder.path().join("a"), fixture.folder.path().join("link")).expect("a link");
    fs::create_dir(fixture.folder.path().join("folder")).expect("a folder");
    let pipe = fixture.folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a pipe");
    let absent = fixture.register("r", "/absent", (0, 1)).expect_err("nothing").message;
    for key in ["link", "folder", "pipe"] {
        let error = fixture.register("r", key, (0, 1)).expect_err(key);
        assert_eq!(error.message, absent.replace("/absent", key));
    }
    let error =
        fixture.regions.register(MINE, uid() + 1, "r", "a", (0, 8)).expect_err("not theirs");
    assert_eq!(error.message, absent.replace("/absent", "a"));
}

#[test]
fn tenants_do_not_see_each_other() {
    let fixture = Fixture::new(8);
    fixture.object("a", &[0; 8]);
    fixture.register("r", "/a", (0, 8)).expect("it fits");
    let foreign = fixture.regions.find(THEIRS, "r").expect_err("not theirs");
    let absent = fixture.regions.find(MINE, "x").expect_err("nothing");
    assert_eq!(foreign.message, absent.message.replace('x', "r"));
    assert_eq!(foreign.kind, ErrorKind::NotFound);
    fixture.regions.register(THEIRS, uid(), "r", "/a", (0, 4)).expect("a name of their own");
    let sizes = |tenant| {
        fixture.regions.all(tenant).iter().map(|region| region.byte_size).collect::<Vec<_>>()
    };
    assert_eq!((sizes(MINE), sizes(THEIRS)), (vec![8], vec![4]));
    let used = fixture.find("r");
    fixture.regions.unregister(MINE, "");
    assert_eq!((sizes(MINE), sizes(THEIRS)), (vec![], vec![4]));
    assert_eq!(used.read(&slice(0, 8)).as_deref(), Ok([0; 8].as_slice()));
    fixture.regions.unregister(MINE, "r");
    assert_eq!(sizes(THEIRS), [4]);
}
