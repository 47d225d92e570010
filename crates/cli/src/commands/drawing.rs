//! What was typed → pictures to draw.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use pipeline::Request;

use crate::args::{Pictures, Sampling};

/// Prompts that come with the program, varied in what they show and how.
const PROMPTS: &str = include_str!("../prompts.txt");

/// How pictures are drawn; nothing else of a request.
pub(crate) fn request(sampling: &Sampling) -> Result<Request> {
    Ok(Request {
        width: sampling.width,
        height: sampling.height,
        steps: sampling.steps.map(|n| n as usize),
        guidance: sampling.cfg_scale,
        method: sampling.method.as_deref().map(str::parse).transpose()?,
        schedule: sampling.scheduler.as_deref().map(str::parse).transpose()?,
        ..Request::default()
    })
}

/// The pictures that stand for all, after the first `skipped` prompts.
pub(crate) fn pictures(typed: &Pictures, skipped: usize) -> Result<Request> {
    let all = all_prompts(typed)?;
    let prompts: Vec<String> =
        all.iter().skip(skipped).take(typed.count as usize).cloned().collect();
    let needed = skipped + typed.count as usize;
    ensure!(
        prompts.len() == typed.count as usize,
        "{needed} prompts are needed, and there are {}; give a file of more with --prompts, or a \
         smaller --count",
        all.len()
    );
    let (seed, pictures) = (u64::from(typed.seed), typed.batch_count as usize);
    Ok(Request { prompts, seed, pictures, ..request(&typed.sampling)? })
}

/// One picture of each of at most `most` prompts after the first `skipped`; of the first ones, where there are no more.
pub(crate) fn others(typed: &Pictures, skipped: usize, most: usize) -> Result<Request> {
    let all = all_prompts(typed)?;
    let rest = all.get(skipped..).filter(|rest| !rest.is_empty()).unwrap_or(&all);
    let prompts = rest.iter().take(most).cloned().collect();
    let seed = u64::from(typed.seed);
    Ok(Request { prompts, seed, pictures: 1, ..request(&typed.sampling)? })
}

fn all_prompts(typed: &Pictures) -> Result<Vec<String>> {
    typed.prompts.as_deref().map_or_else(|| Ok(lines(PROMPTS)), prompts)
}

/// The prompts of a file, one on each line.
pub(crate) fn prompts(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the prompts in {}", path.display()))?;
    let lines = lines(&text);
    ensure!(!lines.is_empty(), "{} has no prompts; write one on each line", path.display());
    Ok(lines)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{PROMPTS, lines};

    #[test]
    fn bundled_prompts_are_many_and_different() {
        let all = lines(PROMPTS);
        assert!(all.len() >= 256);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
