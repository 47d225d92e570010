//! What can be wrong with a scheduler's configuration.

/// A configuration that cannot be followed exactly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no JSON object.
    #[error("the scheduler configuration is not a json object: {reason}")]
    NotAnObject {
        /// What the parser found.
        reason: String,
    },
    /// `_class_name` names a scheduler that is not here, or is missing.
    #[error("unknown scheduler `{class}`; choose one with --sampling-method: {choices}")]
    UnknownScheduler {
        /// The class that the file names.
        class: String,
        /// Names of the sampling methods to use instead.
        choices: String,
    },
    /// No sampling method or noise schedule has this name.
    #[error("unknown {what} `{name}`; choose one of: {choices}")]
    UnknownName {
        /// "sampling method" or "noise schedule".
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are.
        choices: String,
    },
    /// A field that no scheduler of diffusers has, with a value that may matter.
    #[error("unknown scheduler field `{field}` = {value}; remove it, or set it to null or false")]
    UnknownField {
        /// Name of the field.
        field: String,
        /// Its value, as JSON.
        value: String,
    },
    /// A field has a value that is out of its range or of the wrong kind.
    #[error("scheduler field `{field}` = {value} is not usable; it must be {expected}")]
    BadValue {
        /// Name of the field.
        field: String,
        /// Its value, as JSON.
        value: String,
        /// What would do.
        expected: String,
    },
    /// A method cannot follow this noise schedule.
    #[error("{method} has no {schedule} schedule; use it with --sampling-method {choices}")]
    NoSuchSchedule {
        /// Name of the method.
        method: &'static str,
        /// Name of the schedule.
        schedule: &'static str,
        /// Methods that have it.
        choices: &'static str,
    },
    /// The number of steps does not fit the configuration.
    #[error("{steps} steps are not possible with {method}: {reason}")]
    BadSteps {
        /// Steps asked for.
        steps: usize,
        /// Name of the method.
        method: &'static str,
        /// Why not, and which number would do.
        reason: String,
    },
}
