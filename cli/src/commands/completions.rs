//! `trimtab completions`: what makes the tab key know the commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::{Exit, Failure};
use crate::output::Output;

pub(crate) const EXAMPLES: &str = "\
Examples:
  trimtab completions bash > ~/.local/share/bash-completion/completions/trimtab
  trimtab completions zsh  > ~/.zfunc/_trimtab
  trimtab completions fish > ~/.config/fish/completions/trimtab.fish";

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut crate::Cli::command(),
        "trimtab",
        &mut script,
    );
    let script = String::from_utf8(script)
        .map_err(|_| Failure::new(Exit::Failed, "the completions are not text"))?;
    output.text(&script)
}
