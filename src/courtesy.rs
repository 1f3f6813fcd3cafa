//! Threads that give way: loading must not slow down what is served meanwhile.

use rustix::process::setpriority_process;
use std::io;
use std::thread::{Builder, JoinHandle};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// The least urgent of all.
const NICE_MAX: i32 = 19;

/// Runs work on a thread of its own that gives way to all others, and so do the threads that it starts.
///
/// Priority cannot be raised again without a privilege, hence a thread that ends with its work.
///
/// # Errors
/// When the system gives no thread.
pub fn background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        give_way();
        work()
    })
}

/// Makes the calling thread the least urgent of all, and so those that it starts; one that keeps its priority works too.
pub fn give_way() {
    // A thread of this policy is put aside at once when any other wakes up.
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle).is_err() {
        // Zero, as none is sent, means the calling thread on Linux.
        let _ = setpriority_process(None, NICE_MAX);
    }
}

/// A value that is let go of by a thread that gives way: many pages, of memory or of a file, take milliseconds to give
/// back, for which a thread that serves would stand still.
#[derive(Debug)]
pub struct Polite<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Polite<T> {
    /// A value to be let go of politely.
    pub const fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl AsRef<[u8]> for Polite<Vec<u8>> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<T: Send + 'static> Drop for Polite<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        // Where there is no thread to be had it goes here and now.
        let _ = background("free", move || drop(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;
    use std::sync::mpsc;
    use thread_priority::thread_schedule_policy;

    #[test]
    fn only_the_thread_itself_gives_way() {
        let urgency = || (thread_schedule_policy().unwrap(), getpriority_process(None).unwrap());
        let before = urgency();
        let (policy, nice) = background("courtesy", urgency).unwrap().join().unwrap();
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert!(policy == idle || nice == NICE_MAX, "{policy:?} {nice}");
        assert_eq!(urgency(), before);
    }

    #[test]
    fn what_is_let_go_politely_goes_elsewhere() {
        struct Tells(mpsc::Sender<std::thread::ThreadId>);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.send(std::thread::current().id()).unwrap();
            }
        }
        let (sender, told) = mpsc::channel();
        drop(Polite::new(Tells(sender)));
        assert_ne!(told.recv().unwrap(), std::thread::current().id());
    }
}
