//! Where the supervisor's lines go: stderr, beside those of the program, which go there by themselves.

use serde_json::json;

use crate::output::Output;
use crate::run::line::Line;

/// Says what becomes of one instance.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) output: Output,
    pub(crate) service: String,
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) check: String,
}

impl Journal {
    pub(crate) fn say(&self, line: &Line) {
        let Self {
            output,
            service,
            group,
            id,
            address,
            check,
        } = self;
        let message = match line {
            Line::Registered => format!("registered at {address}"),
            Line::Started { .. } => format!("{line}, to be registered when it passes: {check}"),
            line => line.to_string(),
        };
        if output.is_json() {
            let event = json!({
                "event": line.name(),
                "service": service,
                "group": group,
                "instance": id,
                "message": message,
            });
            output.event(&event.to_string());
        } else {
            output.event(&format!("trimtab run {service} {group} {id}: {message}"));
        }
    }
}
