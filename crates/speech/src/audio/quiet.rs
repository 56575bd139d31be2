//! Panics of libraries, caught without a line on standard error: what comes of them is an error in a sentence.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Does this thread run what may panic unheard?
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `run` returns, or `None` if it panics. The process's panic hook hears nothing of that, and everything of
/// others.
pub(super) fn quietly<T>(run: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    // `set_hook` must not be called by a thread that panics, of which a destructor may come here.
    if !std::thread::panicking() {
        HOOK.call_once(|| {
            let others = take_hook();
            set_hook(Box::new(move |info| {
                if !QUIET.get() {
                    others(info);
                }
            }));
        });
    }
    let before = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process of which standard error is looked at.
    const INSIDE: &str = "TSSERVE_TEST_QUIETLY";

    #[test]
    fn a_caught_panic_prints_nothing() {
        if std::env::var_os(INSIDE).is_some() {
            assert_eq!(quietly(|| 7), Some(7));
            assert_eq!(quietly(|| quietly(|| panic!("unheard within"))), Some(None::<()>));
            assert_eq!(quietly::<()>(|| panic!("unheard")), None);
            assert!(catch_unwind(|| panic!("heard after it")).is_err());
            let other = || std::thread::spawn(|| panic!("heard beside it")).join().is_err();
            assert_eq!(quietly(other), Some(true));
            return;
        }
        let name = "audio::quiet::tests::a_caught_panic_prints_nothing";
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).args([name, "--exact", "--nocapture"]).env(INSIDE, "1").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains("heard after it") && printed.contains("heard beside it"), "{printed}");
        assert!(!printed.contains("unheard"), "{printed}");
    }
}
