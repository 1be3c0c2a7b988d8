//! What a restore leaves that was asked to stop: said exactly, since it is not nothing.

use super::{Destination, RestorePlan, RestoreReport};

/// How to go on after the disk was full; `told` is what is known of single files.
pub(super) fn out_of_room(plan: &RestorePlan, told: Option<&str>) -> String {
    let id = plan.snapshot.id.short();
    let told = told.map(|told| format!("{told}. ")).unwrap_or_default();
    format!(
        "{told}Every other file is whole, and the restore is not finished. Make room there and run the same command again: \
         it compares what is there and writes only what is missing or differs. Say {id} in place of a selector such as \
         `latest`, should there be a newer recovery point by then"
    )
}

/// What is at the target now, and how to go on.
pub(super) fn left(plan: &RestorePlan, report: &RestoreReport) -> String {
    let id = plan.snapshot.id.short();
    let mut told = match &plan.request.to {
        Destination::Folder(folder) => format!(
            "{} now holds a part of recovery point {id}; files that were being written may be cut short",
            folder.display()
        ),
        Destination::InPlace => {
            let mut told = format!(
                "the original places are now partly as in recovery point {id} and partly as they were; files that were \
                 being written may hold parts of both"
            );
            if !report.swapped.is_empty() {
                let paths: Vec<&str> = report.swapped.iter().map(|s| s.path.as_str()).collect();
                told.push_str(&format!(
                    "; databases already swapped in, the old ones beside them: {}",
                    paths.join(", ")
                ));
            }
            told
        }
    };
    for line in &report.moved_aside {
        told.push_str(&format!("; {line}"));
    }
    told.push_str(&format!(
        ". Run the same command again: it compares what is there and writes only what is missing or differs. Say {id} \
         in place of a selector such as `latest`, should there be a newer recovery point by then"
    ));
    told
}
