//! The processes of a scenario that are not replicas: instances, callers, deploy scripts, readers.

mod caller;
mod instance;
mod reader;
mod script;

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub(crate) use caller::Caller;
pub(crate) use instance::Instance;
pub(crate) use reader::Reader;
pub(crate) use script::{Script, text as route_text};

/// How this program is told to play a part; the part follows as JSON.
pub(crate) const PLAY: &str = "play";

/// The service that is called.
pub(crate) const SERVICE: &str = "catalog";

/// A part, with all there is to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    Instance(Instance),
    Caller(Caller),
    Script(Script),
    Reader(Reader),
}

/// Plays until stdin ends.
pub(crate) fn play(part: &str) -> ExitCode {
    let part: Part = serde_json::from_str(part).expect("a part");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        match part {
            Part::Instance(instance) => instance.play().await,
            Part::Caller(caller) => caller.play().await,
            Part::Script(script) => script.play().await,
            Part::Reader(reader) => reader.play().await,
        }
    });
    // What hangs on a replica that is stopped must not hold up the end.
    std::process::exit(0)
}

/// Returns at the end of stdin.
async fn told_to_finish() {
    let (say, told) = oneshot::channel();
    std::thread::spawn(move || {
        // An error ends it as well.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = say.send(());
    });
    let _ = told.await;
}
