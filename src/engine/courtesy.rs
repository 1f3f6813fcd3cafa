//! Threads that give way: loading must not slow down what is served meanwhile.

use rustix::process::setpriority_process;
use std::io;
use std::thread::{Builder, JoinHandle};

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
        // Zero, as none is sent, means the calling thread on Linux; one that keeps its priority works too.
        let _ = setpriority_process(None, NICE_MAX);
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    #[test]
    fn only_the_thread_itself_gives_way() {
        let before = getpriority_process(None).unwrap();
        let inside = background("courtesy", || getpriority_process(None)).unwrap().join().unwrap();
        assert_eq!(inside.unwrap(), NICE_MAX);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
