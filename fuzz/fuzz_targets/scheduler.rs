//! `scheduler_config.json`: any text is taken or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeline::schedule::SchedulerConfig;

fuzz_target!(|text: &str| {
    if let Ok(config) = SchedulerConfig::from_json(text) {
        let _ = config.sampler(3);
    }
});
