//! The bits at many averages and ratios, to be compared by what the model draws with them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use quant::table::bits_to_yaml;
use quant::{Budget, Kind, Problem};

use crate::output;
use crate::report::{self, Unmet};

/// Write one file for each budget that has a solution.
pub(super) fn run(problem: &Problem, kind: Kind, average: f64, folder: &Path) -> Result<()> {
    let budgets = Budget::sweep(kind, average);
    let names = names(kind, &budgets);
    let solved = budgets.iter().map(|budget| problem.allocate(*budget));
    let solved = solved.collect::<Result<Vec<_>, _>>()?;
    let mut written = 0;
    for (name, allocation) in names.iter().zip(&solved) {
        if allocation.content.best.is_none() || allocation.quality.best.is_none() {
            continue;
        }
        if written == 0 {
            std::fs::create_dir_all(folder).with_context(|| {
                format!("cannot make the folder {}; choose another place", folder.display())
            })?;
        }
        output::save(&folder.join(name), bits_to_yaml(&allocation.bits).as_bytes())?;
        written += 1;
    }
    if written == 0 {
        let fault = format!("no ratio has a choice of bits with averages up to {average}");
        return Err(Unmet(format!("{fault}; choose other --average-bits")).into());
    }
    let without = budgets.len() - written;
    report::say(&format!(
        "{}: {written} files; {without} budgets have no solution",
        folder.display()
    ));
    Ok(())
}

/// A name for each budget, with as few decimals as tell them apart, but two at least.
fn names(kind: Kind, budgets: &[Budget]) -> Vec<String> {
    let rounded = |decimals: usize| {
        let name = |budget: &Budget| {
            let Budget { average, ratio } = budget;
            format!("{}_{average:.decimals$}_{ratio:.decimals$}.yaml", kind.name())
        };
        budgets.iter().map(name).collect::<Vec<String>>()
    };
    let distinct = |names: &Vec<String>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    (2..8).map(rounded).find(distinct).unwrap_or_else(|| rounded(17))
}

#[cfg(test)]
mod tests {
    use super::names;
    use quant::{Budget, Kind};

    #[test]
    fn no_two_files_have_one_name() {
        let weights = names(Kind::Weight, &Budget::sweep(Kind::Weight, 5.0));
        assert_eq!(
            (&weights[0][..], &weights[99][..]),
            ("weight_4.70_0.46.yaml", "weight_5.00_1.36.yaml")
        );
        // Twenty ratios from 0.94 to 1.09 are more than there are hundredths.
        let acts = names(Kind::Act, &Budget::sweep(Kind::Act, 7.7));
        assert_eq!((&acts[0][..], &acts[1][..]), ("act_7.400_0.940.yaml", "act_7.400_0.948.yaml"));
    }
}
