//! Who makes a change, when nobody says so: user@host.

use std::env;
use std::fs;
use std::process::{Command, Stdio};

/// The longest actor the registry keeps, in bytes.
const ACTOR_BYTES_MAX: usize = 128;

/// The user and the machine as well as they can be found out.
pub(crate) fn default_actor() -> String {
    let user = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| present(env::var(name).ok()?))
        .or_else(|| ask("id", &["-un"]));
    join(user.as_deref(), host().as_deref())
}

fn join(user: Option<&str>, host: Option<&str>) -> String {
    let actor = match (user, host) {
        (Some(user), Some(host)) => format!("{user}@{host}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => "unknown".to_owned(),
    };
    let end = (0..=ACTOR_BYTES_MAX.min(actor.len()))
        .rev()
        .find(|end| actor.is_char_boundary(*end));
    actor[..end.unwrap_or(0)].to_owned()
}

fn host() -> Option<String> {
    let from_file = |path: &str| present(fs::read_to_string(path).ok()?);
    from_file("/proc/sys/kernel/hostname")
        .or_else(|| from_file("/etc/hostname"))
        .or_else(|| present(env::var("HOSTNAME").ok()?))
        .or_else(|| ask("hostname", &[]))
}

/// What a program that the system may have says.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    present(String::from_utf8(output.stdout).ok()?)
}

fn present(text: String) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_said() {
        assert_eq!(join(Some("ann"), Some("build-7")), "ann@build-7");
        assert_eq!(join(None, Some("build-7")), "build-7");
        assert_eq!(join(None, None), "unknown");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let cut = join(Some(&"ä".repeat(100)), Some("host"));
        assert_eq!(cut.len(), ACTOR_BYTES_MAX);
        let odd = join(Some(&format!("x{}", "ä".repeat(100))), None);
        assert_eq!(odd.len(), ACTOR_BYTES_MAX - 1);
    }
}
