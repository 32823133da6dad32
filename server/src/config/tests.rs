//! What an operator may set, and what is refused.

use super::*;

fn args() -> ServeArgs {
    ServeArgs::default()
}

fn peers(list: &str) -> Option<Vec<String>> {
    Some(list.split(',').map(str::to_owned).collect())
}

fn refusal(args: ServeArgs) -> String {
    args.resolve().expect_err("must be refused").to_string()
}

#[test]
fn no_arguments_mean_one_replica_on_loopback() {
    let config = args().resolve().expect("valid");
    assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
    assert_eq!(config.members.len(), 1);
    assert_eq!(config.advertise(), DEFAULT_LISTEN);
    assert_eq!(config.data_dir, PathBuf::from("trimtab-1.data"));
}

#[test]
fn a_replica_listens_where_its_peers_look_for_it() {
    let config = ServeArgs {
        id: Some(2),
        peers: peers("1=127.0.0.1:7071,2=127.0.0.1:7072"),
        ..args()
    }
    .resolve()
    .expect("valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:7072");
    assert_eq!(config.advertise(), "127.0.0.1:7072");
}

#[test]
fn an_exposed_address_needs_an_explicit_word() {
    let exposed = ServeArgs {
        listen: "0.0.0.0:7070".parse().ok(),
        advertise: Some("registry-1:7070".to_owned()),
        ..args()
    };
    assert!(refusal(exposed.clone()).contains("--insecure"));
    let config = ServeArgs {
        insecure: true,
        ..exposed
    }
    .resolve()
    .expect("valid");
    assert_eq!(config.advertise(), "registry-1:7070");
}

#[test]
fn contradictions_are_refused_with_the_value() {
    let absent = ServeArgs {
        id: Some(4),
        peers: peers("1=127.0.0.1:1,2=127.0.0.1:2"),
        ..args()
    };
    assert!(refusal(absent).contains("this one is 4"));
    let twice = ServeArgs {
        peers: peers("1=127.0.0.1:1,1=127.0.0.1:2"),
        ..args()
    };
    assert!(refusal(twice).contains("each replica once"));
    let shared = ServeArgs {
        peers: peers("1=127.0.0.1:1,2=127.0.0.1:1"),
        ..args()
    };
    assert!(refusal(shared).contains("replica 1 has this address"));
    let no_port = ServeArgs {
        peers: peers("1=localhost"),
        ..args()
    };
    assert!(refusal(no_port).contains("HOST:PORT"));
    let disagreeing = ServeArgs {
        advertise: Some("127.0.0.1:9".to_owned()),
        peers: peers("1=127.0.0.1:1"),
        ..args()
    };
    assert!(refusal(disagreeing).contains("must agree"));
    let nowhere = ServeArgs {
        listen: "0.0.0.0:7070".parse().ok(),
        insecure: true,
        ..args()
    };
    assert!(refusal(nowhere).contains("--advertise"));
}

#[test]
fn flags_win_over_the_file_and_unknown_keys_are_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("trimtab.toml");
    std::fs::write(
        &path,
        "id = 3\ndata_dir = \"from-file\"\n[peers]\n1 = \"127.0.0.1:1\"\n3 = \"127.0.0.1:3\"\n",
    )
    .expect("written");
    let config = ServeArgs {
        config: Some(path.clone()),
        data_dir: Some(PathBuf::from("from-flag")),
        ..args()
    }
    .resolve()
    .expect("valid");
    assert_eq!((config.id, config.members.len()), (3, 2));
    assert_eq!(config.data_dir, PathBuf::from("from-flag"));

    std::fs::write(&path, "lisen = \"127.0.0.1:1\"\n").expect("written");
    let misspelt = ServeArgs {
        config: Some(path),
        ..args()
    };
    assert!(refusal(misspelt).contains("unknown field `lisen`"));
}
