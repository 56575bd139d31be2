use super::*;

#[test]
fn every_chunk_is_computed_once_and_joins_order_operations() {
    for n_threads in [1, 2, 3, 5] {
        let team = Team::new(n_threads).unwrap();
        for n_chunks in [0, 1, 2, 7, 64] {
            let first: Vec<AtomicUsize> = (0..n_chunks).map(|_| AtomicUsize::new(0)).collect();
            let sums: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                first.iter().for_each(|n| n.store(0, Ordering::Relaxed));
                team.run(&|worker| {
                    worker.share(n_chunks, |i| _ = first[i].fetch_add(1, Ordering::Relaxed));
                    // All chunks of the first operation are done when the second begins.
                    for sum in &sums {
                        worker.share(1, |_| {
                            sum.store(first.iter().map(|n| n.load(Ordering::Relaxed)).sum(), Ordering::Relaxed);
                        });
                    }
                });
                assert!(first.iter().all(|n| n.load(Ordering::Relaxed) == 1));
                assert!(sums.iter().all(|sum| sum.load(Ordering::Relaxed) == n_chunks));
            }
        }
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_team_goes_on() {
    let team = Team::new(3).unwrap();
    for round in 0..20 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            team.run(&|worker| {
                worker.join();
                if worker.index() == round % worker.n_active() {
                    resume_unwind(Box::new(round));
                }
                worker.join();
                worker.share(4, |_| {});
            });
        }));
        assert_eq!(caught.unwrap_err().downcast_ref::<usize>(), Some(&round));
        let n = AtomicUsize::new(0);
        team.run(&|worker| worker.share(9, |_| _ = n.fetch_add(1, Ordering::Relaxed)));
        assert_eq!(n.load(Ordering::Relaxed), 9);
    }
}

#[test]
fn work_of_several_callers_takes_turns() {
    let team = Team::new(2).unwrap();
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    team.run(&|worker| {
                        if worker.index() == 0 {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        }
                        worker.share(3, |_| {});
                        if worker.index() == 0 {
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    });
                }
            });
        }
    });
}

#[test]
fn sleeping_threads_wake_for_work() {
    let team = Team::new(2).unwrap();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(3));
        let n = AtomicUsize::new(0);
        team.run(&|worker| {
            // One thread late: the other sleeps at the join.
            if worker.index() == 1 {
                std::thread::sleep(Duration::from_millis(3));
            }
            worker.join();
            n.fetch_add(1, Ordering::Relaxed);
        });
        assert!((1..=2).contains(&n.load(Ordering::Relaxed)));
    }
}
