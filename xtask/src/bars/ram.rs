//! The memory promise: pictures within limits, planned, measured and held from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::hard_limit::{HardLimit, evict, read_from_disk};
use super::readings::Readings;
use super::{Options, packed};
use crate::command::{build, capture, program};
use crate::console::say;

/// Limits that are tried beside none.
const LIMITS: [&str; 3] = ["1000M", "600M", "400M"];

/// What a limit from outside leaves beyond the promise, in bytes.
const BEYOND: u64 = 64_000_000;

/// SDXL's shape in `w4a8` at 512×512, one step. Reads peaks in MB: `default`, `large` (1024×1024) and `sd` (SD-Turbo's
/// shape); `large_time` (times that of 512×512); `under_600` and `under_400` (seconds within a hard limit, from a cold
/// file, of the larger of those without limit and those that reading takes); `beyond_plan` and `below_plan` (MB by which
/// a measured peak is more than planned, and by which a plan is more than 1.05 times the measured peak); `differ`
/// (pictures that are not those without limit); `batch_reads` (bytes that four prompts read from a cold file, of those
/// that one reads) and `refused` (1 if less than the least is refused by name).
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let binary = build(&["--release"])?;
    let file = packed::w4a8(options, "sdxl-turbo")?;
    let folder = options.models.join("ram");
    fs::create_dir_all(&folder)?;
    let case = |size, limit: &str| Case {
        binary: binary.clone(),
        file: file.clone(),
        size,
        limit: (!limit.is_empty()).then(|| limit.to_owned()),
        picture: folder.join(format!("{size}-{limit}.png")),
    };
    // The first run brings the file into the page cache.
    case(512, "").run(None)?;
    let free = case(512, "").run(None)?;
    let mut runs = vec![free];
    for limit in LIMITS {
        runs.push(case(512, limit).run(None)?);
    }
    let mut readings = Readings::default();
    readings.set("default", free.peak);
    let differ = LIMITS.iter().map(|limit| differs(&case(512, ""), &case(512, limit)));
    readings.set("differ", differ.collect::<Result<Vec<_>>>()?.into_iter().map(f64::from).sum());
    let disk = fs::metadata(&file)?.len() as f64 / read_from_disk(&file)?;
    for (limit, name) in [("600M", "under_600"), ("400M", "under_400")] {
        evict(&file)?;
        let bytes: u64 = limit.trim_end_matches('M').parse::<u64>()? * 1_000_000;
        let hard = HardLimit::new(bytes + BEYOND);
        let run = case(512, limit).run(Some(&hard))?;
        let reading = fs::metadata(&file)?.len() as f64 / disk;
        say(&format!(
            "  {limit} in a {}: {:.2} s; the disk needs {reading:.2} s",
            hard.name(),
            run.seconds
        ));
        readings.set(name, run.seconds / free.seconds.max(reading));
        runs.push(run);
    }
    let of_one = bytes_read(&case(512, "600M"), &["a fox"])?;
    let of_four = bytes_read(&case(512, "600M"), &["a fox", "a red house", "a boat", "the moon"])?;
    readings.set("batch_reads", of_four / of_one);
    let large = case(1024, "").run(None)?;
    readings.set("large", large.peak);
    readings.set("large_time", large.seconds / free.seconds);
    runs.push(large);
    let most = |over: fn(&Run) -> f64| runs.iter().map(over).fold(f64::NEG_INFINITY, f64::max);
    readings.set("beyond_plan", most(|run| run.peak - run.planned));
    readings.set("below_plan", most(|run| run.planned - 1.05 * run.peak));
    readings.set("refused", f64::from(refuses_too_little(case(512, "50M"))?));
    let sd = Case { file: packed::w4a8(options, "sd-turbo")?, ..case(512, "") };
    readings.set("sd", sd.run(None)?.peak);
    Ok(readings)
}

/// A picture to draw.
struct Case {
    binary: PathBuf,
    file: PathBuf,
    size: usize,
    limit: Option<String>,
    picture: PathBuf,
}

/// What it took: seconds, and MB as measured and as planned.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    peak: f64,
    planned: f64,
}

impl Case {
    fn run(&self, hard: Option<&HardLimit>) -> Result<Run> {
        let mut command = match hard {
            Some(hard) => hard.program(&self.binary),
            None => program(&self.binary, &[]),
        };
        let size = self.size.to_string();
        command.args(["generate", "-p", "a lighthouse at dawn", "-v", "--steps", "1", "-t", "2"]);
        command.args(["-W", &size, "-H", &size, "-m"]).arg(&self.file).arg("-o").arg(&self.picture);
        if let Some(limit) = &self.limit {
            command.args(["--max-ram", limit]);
        }
        let output = capture(command.stdout(Stdio::null()))?;
        if !output.success {
            let last = output.err.lines().last().unwrap_or("no message");
            bail!("mixdq generate {} failed: {last}", self.limit.as_deref().unwrap_or_default());
        }
        let run = Run::parse(&output.err).context("mixdq generate -v printed no plan or total")?;
        let Run { seconds, peak, planned } = run;
        say(&format!(
            "  {size}x{size} {}: {seconds:.2} s, planned {planned:.0} MB, peak {peak:.0} MB",
            self.limit.as_deref().unwrap_or("without limit"),
        ));
        Ok(run)
    }
}

impl Run {
    /// From the plan's last line, in MiB, and the line of the total.
    fn parse(text: &str) -> Option<Self> {
        let words = |name: &str| -> Option<Vec<&str>> {
            let line = text.lines().rfind(|line| line.split(' ').next() == Some(name))?;
            Some(line.split_whitespace().collect())
        };
        let (planned, total) = (words("peak")?, words("total")?);
        let mib: f64 = planned.get(1)?.parse().ok()?;
        Some(Self {
            seconds: total.get(1)?.parse().ok()?,
            peak: total.get(total.len().checked_sub(2)?)?.parse().ok()?,
            planned: mib * f64::from(1 << 20) / 1e6,
        })
    }
}

/// Bytes that drawing these prompts reads from the disk.
fn bytes_read(case: &Case, prompts: &[&str]) -> Result<f64> {
    let list = case.picture.with_extension("txt");
    fs::write(&list, prompts.join("\n"))?;
    evict(&case.file)?;
    let mut command = program(&case.binary, &["generate", "--steps", "1", "-t", "2", "--prompts"]);
    command.arg(&list).args(["-W", "512", "-H", "512", "-m"]).arg(&case.file);
    command.args(["--max-ram", case.limit.as_deref().unwrap_or_default(), "-o"]);
    command.arg(case.picture.with_extension("reads.png"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let counts = format!("/proc/{}/io", child.id());
    let mut bytes = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let read = fs::read_to_string(&counts).ok().as_deref().and_then(read_bytes);
        bytes = read.unwrap_or(bytes);
        std::thread::sleep(Duration::from_millis(20));
    };
    ensure!(status.success(), "mixdq generate --prompts failed");
    say(&format!("  {} prompts in {:?}: {:.0} MB read", prompts.len(), case.limit, bytes / 1e6));
    Ok(bytes)
}

/// What came from the disk; the system may not say.
fn read_bytes(counts: &str) -> Option<f64> {
    counts.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.parse().ok()
}

fn differs(one: &Case, other: &Case) -> Result<bool> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(read(&one.picture)? != read(&other.picture)?)
}

/// Whether too small a limit is refused in one line that names a limit with which the picture is drawn.
fn refuses_too_little(case: Case) -> Result<bool> {
    let mut command = program(&case.binary, &["generate", "-p", "x", "--max-ram"]);
    command.arg(case.limit.as_deref().unwrap_or_default()).arg("-m").arg(&case.file);
    command.args(["-W", "512", "-H", "512", "--steps", "1", "-t", "2", "-o"]).arg(&case.picture);
    let refusal = capture(&mut command)?;
    ensure!(!refusal.success, "a limit of {:?} was accepted", case.limit);
    let lines: Vec<&str> = refusal.err.lines().filter(|line| line.starts_with("error")).collect();
    let [line] = lines.as_slice() else { return Ok(false) };
    let named = line.split("at least ").nth(1).and_then(|rest| rest.split(&[' ', ',']).next());
    let Some(least) = named.filter(|word| word.ends_with('M')) else { return Ok(false) };
    let least = Case { limit: Some(least.to_owned()), ..case };
    least.run(None).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::Run;

    #[test]
    fn plan_and_total_are_read_from_what_is_said() {
        let text = "peak                                                       100.0\n\
            text      1.20 s   peak 679 MB\ntotal     10.65 s   peak 1291 MB\n";
        let run = Run::parse(text).unwrap();
        assert_eq!((run.seconds, run.peak, run.planned), (10.65, 1291.0, 104.8576));
    }
}
