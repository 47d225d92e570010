//! Prompt to picture.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use pipeline::{Decode, Drawn, Overflow, Request, Settings, TextToImage, Watch};

use super::{drawing, engine, memory};
use crate::args::Generate;
use crate::output::Target;
use crate::report::{self, Details, Progress};

/// Set by Ctrl-C; looked at before every operation.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Draw what was asked for.
pub(crate) fn run(args: &Generate) -> Result<()> {
    let start = Instant::now();
    let target = Target::new(&args.output);
    target.check()?;
    let request = request(args)?;
    ctrlc::set_handler(|| CANCEL.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
    let progress = Progress::new(if args.verbose { Details::Phases } else { Details::None });
    let observer = |event| progress.tell(event);
    let watch = Watch { cancel: Some(&CANCEL), observer: Some(&observer), ..Watch::default() };

    let model = engine::model(&args.engine.source)?;
    let cpu = engine::cpu(args.engine.threads)?;
    let plan = engine::plan(&args.engine, &model, &cpu)?;
    let pipeline = TextToImage::new(&cpu, &model, &plan);
    let settings = pipeline.settings(&request)?;
    let (pipeline, memory) =
        memory::Plan::fit(pipeline, (&request, &settings), args.memory.max_ram)?;
    announce(args, &settings);
    if args.verbose {
        report::say(memory.table("memory plan")?.trim_end());
    }
    for assumed in &model.assumed {
        report::say(&format!("assumed, since the file does not say: {assumed}"));
    }
    pipeline.draw(&request, &watch, &mut |drawn: Drawn<'_>| {
        let text = parameters(&drawn, &request, &settings, &model.name);
        target.write(drawn.index, &drawn.picture, &text)
    })??;
    progress.total(start.elapsed());
    Ok(())
}

/// What was typed → what is to be drawn.
fn request(args: &Generate) -> Result<Request> {
    Ok(Request {
        prompts: prompts(args)?,
        negative: args.negative_prompt.clone(),
        seed: seed(args.seed)?,
        pictures: args.batch_count as usize,
        clip_skip: args.clip_skip.unwrap_or(0) as usize,
        overflow: if args.long_prompt { Overflow::Chunks } else { Overflow::Cut },
        decode: if args.vae_tiling { Decode::Tiled } else { Decode::Whole },
        ..drawing::request(&args.sampling)?
    })
}

fn prompts(args: &Generate) -> Result<Vec<String>> {
    if let Some(path) = &args.prompts {
        return drawing::prompts(path);
    }
    match args.prompt.as_ref().or(args.words.as_ref()) {
        Some(prompt) => Ok(vec![prompt.clone()]),
        None => bail!("no prompt; say what to draw with -p"),
    }
}

/// The seed that was typed, or one from the clock, which is then printed.
fn seed(typed: i64) -> Result<u64> {
    match typed {
        -1 => {
            let now =
                SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
            let seed = u64::from(now.subsec_nanos()) ^ (now.as_secs() & 0xffff_ffff);
            report::say(&format!("seed {seed}"));
            Ok(seed)
        }
        seed => u64::try_from(seed).context("a seed is -1 or a number from 0 up"),
    }
}

/// Say which defaults were taken and where they come from.
fn announce(args: &Generate, settings: &Settings) {
    let defaults = &settings.defaults;
    let mut said = Vec::new();
    if args.sampling.steps.is_none() {
        said.push(format!("{} steps ({})", settings.steps, defaults.steps.from));
    }
    if args.sampling.cfg_scale.is_none() {
        said.push(format!("guidance {} ({})", settings.guidance, defaults.guidance.from));
    }
    if args.sampling.width.is_none() || args.sampling.height.is_none() {
        said.push(format!("{}x{} ({})", settings.width, settings.height, defaults.size.from));
    }
    if args.sampling.method.is_none() {
        said.push(format!(
            "sampler {} ({})",
            settings.scheduler.family().name(),
            defaults.method.from
        ));
    }
    if !said.is_empty() {
        report::say(&format!("defaults: {}", said.join(", ")));
    }
}

/// The picture's description, in the form that A1111 introduced.
fn parameters(drawn: &Drawn<'_>, request: &Request, settings: &Settings, model: &str) -> String {
    let mut text = drawn.prompt.to_owned();
    if let Some(negative) = &request.negative {
        text.push_str("\nNegative prompt: ");
        text.push_str(negative);
    }
    let mut fields = vec![
        format!("Steps: {}", settings.steps),
        format!("Sampler: {}", settings.scheduler.family().name()),
        format!("CFG scale: {}", settings.guidance),
        format!("Seed: {}", drawn.seed),
        format!("Size: {}x{}", settings.width, settings.height),
        format!("Model: {}", quoted(model)),
    ];
    if let Some(schedule) = settings.schedule {
        fields.insert(2, format!("Schedule type: {}", schedule.name()));
    }
    if request.clip_skip > 0 {
        fields.push(format!("Clip skip: {}", request.clip_skip + 1));
    }
    fields.push("RNG: CPU".to_owned());
    fields.push(format!("Version: mixdq {}", env!("CARGO_PKG_VERSION")));
    text + "\n" + &fields.join(", ")
}

/// A value that holds a comma or colon is quoted, so that readers can split the line.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n', '"']) { format!("{value:?}") } else { value.to_owned() }
}
