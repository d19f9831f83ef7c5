//! Tasks without which a node is a ghost: it would look alive, and nobody would hear anything.
//!
//! A panic on one connection ends that connection. A panic in one of these ends the process: its clients go on at other
//! nodes, and whoever supervises it starts it again.

use std::panic::AssertUnwindSafe;
use std::process;

use futures::FutureExt;
use tokio::task::JoinHandle;

/// Exit code of a process one of whose vital tasks has panicked.
const BROKEN: i32 = 70;

/// Runs a task that must never panic.
pub fn vital<T: Send + 'static>(what: &'static str, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(async move {
        match AssertUnwindSafe(task).catch_unwind().await {
            Ok(output) => output,
            Err(_) => {
                tracing::error!("a bug in {what}: this node cannot go on; its clients will find another one");
                process::exit(BROKEN)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set in the process that is to end.
    const CHILD: &str = "TOWNHALL_TEST_VITAL";

    #[test]
    fn a_panic_in_a_vital_task_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let task = runtime.block_on(async { vital("the test", async { panic!("on purpose") }).await });
            unreachable!("it went on: {task:?}");
        }
        let this = std::env::current_exe().unwrap();
        let name = "vital::tests::a_panic_in_a_vital_task_ends_the_process";
        let ended = process::Command::new(this).args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert_eq!(ended.status.code(), Some(BROKEN), "{ended:?}");
    }

    #[test]
    #[should_panic(expected = "something else")]
    fn one_that_is_dropped_by_a_panic_elsewhere_ends_nothing() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            vital("the test", std::future::pending::<()>());
            panic!("something else");
        });
    }

    #[tokio::test]
    async fn one_that_is_stopped_or_ends_ends_nothing_else() {
        assert_eq!(vital("the test", async { 7 }).await.unwrap(), 7);
        let stopped = vital("the test", std::future::pending::<()>());
        stopped.abort();
        assert!(stopped.await.unwrap_err().is_cancelled());
    }
}
