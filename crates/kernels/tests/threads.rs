//! The pool: every chunk once, whatever happens.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use kernels::threads::Threads;

#[test]
fn every_chunk_runs_once() {
    for count in 1..5 {
        let threads = Threads::new(count);
        assert_eq!(threads.count(), count);
        for chunks in [0, 1, 2, 3, 100, 1000] {
            let times: Vec<_> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
            threads.run(chunks, |chunk| {
                times[chunk].fetch_add(1, Relaxed);
            });
            assert!(times.iter().all(|times| times.load(Relaxed) == 1), "{chunks} on {count}");
        }
    }
}

#[test]
fn workers_do_not_share_their_number() {
    let threads = Threads::new(3);
    let busy: Vec<_> = (0..3).map(|_| AtomicUsize::new(0)).collect();
    threads.run_with(500, |worker, _| {
        assert_eq!(busy[worker].fetch_add(1, Relaxed), 0);
        std::thread::yield_now();
        busy[worker].fetch_sub(1, Relaxed);
    });
}

#[test]
fn many_short_jobs_with_pauses() {
    let threads = Threads::new(3);
    let total = AtomicUsize::new(0);
    for job in 0..3000 {
        threads.run(4, |_| {
            total.fetch_add(1, Relaxed);
        });
        if job % 500 == 0 {
            // Long enough for the workers to park.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(total.into_inner(), 12_000);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_survives() {
    let threads = Threads::new(3);
    for round in 0..20 {
        let result = catch_unwind(AssertUnwindSafe(|| {
            threads.run(50, |chunk| assert!(chunk != 10 + round, "chunk {chunk}"));
        }));
        let payload = result.unwrap_err();
        let text = payload.downcast_ref::<String>().unwrap();
        assert_eq!(*text, format!("chunk {}", 10 + round));
    }
    let total = AtomicUsize::new(0);
    threads.run(10, |_| {
        total.fetch_add(1, Relaxed);
    });
    assert_eq!(total.into_inner(), 10);
}

#[test]
fn a_job_inside_a_job_runs_in_its_thread() {
    let threads = Threads::new(2);
    let total = AtomicUsize::new(0);
    threads.run(4, |_| {
        threads.run(5, |_| {
            total.fetch_add(1, Relaxed);
        });
    });
    assert_eq!(total.into_inner(), 20);
}

#[test]
fn pieces_cover_a_slice() {
    let mut data = vec![0; 103];
    Threads::new(2).run_pieces(&mut data, 10, |index, piece| piece.fill(index));
    assert!(data.iter().enumerate().all(|(i, &index)| index == i / 10));
}
