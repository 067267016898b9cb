//! `opspilot user` and `opspilot key`: on a data directory that nothing else holds, or through the API.
//!
//! With a token and no `--data` the service is asked; an address without a token is refused. Otherwise the directory is
//! opened, which works only while no service holds it, and needs no log-in: whoever may write the files may manage the
//! accounts. Every answer names the place that was changed.

use std::{
    io::{BufRead, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use opspilot_kernel::{
    clock::SystemClock,
    ids::ApiKeyId,
    principal::{Actor, Role},
};
use opspilot_ledger::{KeyRecord, Ledger, NewKey, NewUser, OpenError, Options, Priority, UserChange, UserRecord};
use serde_json::{Value as Json, json};

use super::{
    Api, Data, Failure, Outcome, Server, Table,
    client::encoded,
    ids::{KEY, all},
    output::{complain, moment, say, say_json, text},
    waiting,
};
use crate::{
    http::auth::{
        apikey,
        passwords::{Cost, acceptable, hash_blocking},
    },
    topology::random_password,
};

/// More bytes than any password.
const MAX_INPUT: u64 = 8192;
/// More keys than anybody has.
const MANY: i64 = 10_000;

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make an account
    Add {
        /// Its name
        name: String,
        /// integrator, viewer, operator or admin
        #[arg(long)]
        role: Role,
        /// Groups, for approvals
        #[arg(long, value_delimiter = ',')]
        groups: Vec<String>,
        /// Read the password from standard input; without it a random one is made and shown once
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        of: Of,
    },
    /// Give an account a new password; its sessions end
    Passwd {
        /// Its name
        name: String,
        /// Read the password from standard input; without it a random one is made and shown once
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        of: Of,
    },
    /// Shut an account out at once
    Disable {
        /// Its name
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Let an account in again that was shut out
    Enable {
        /// Its name
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// List the accounts
    List {
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key; it is shown once
    Create {
        /// What it is for
        name: String,
        /// integrator, viewer, operator or admin; never more than its owner
        #[arg(long)]
        role: Role,
        /// Whose it is (on a data directory; the service makes keys for whoever asks)
        #[arg(long, default_value = "admin")]
        owner: String,
        /// After how many days it ends
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
        expires_in_days: Option<u32>,
        #[command(flatten)]
        of: Of,
    },
    /// End a key
    Revoke {
        /// Its id, or the start of it
        id: String,
        #[command(flatten)]
        of: Of,
    },
    /// List the keys
    List {
        #[command(flatten)]
        of: Of,
    },
}

/// Whose accounts: a directory's or a service's.
#[derive(Debug, Clone, Args)]
pub(crate) struct Of {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    server: Server,
}

/// Who is asked.
enum Way {
    Directory(Directory),
    Service(Api),
}

/// Who is asked, and how a person is told of it.
struct Target {
    way: Way,
    place: String,
}

/// A data directory, held by this command.
struct Directory(Ledger);

impl Directory {
    fn open(dir: &Path) -> Result<Directory, OpenError> {
        Ledger::open(Options { tool: true, ..Options::new(dir, SystemClock::shared()) }).map(Directory)
    }

    /// Who did it, as the audit log names somebody who needed no log-in.
    fn actor() -> Actor {
        Actor::User { id: format!("uid:{}", rustix::process::getuid().as_raw()), via: "cli".to_owned() }
    }

    fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut opspilot_ledger::Tx<'_>, &Actor) -> Result<T, opspilot_ledger::LedgerError> + Send + 'static,
    ) -> Result<T, Failure> {
        Ok(self.0.write_blocking(Priority::Control, move |tx| job(tx, &Directory::actor()))?)
    }
}

impl Of {
    fn target(&self) -> Result<Target, Failure> {
        let Of { data, server } = self;
        let service = || -> Result<Target, Failure> {
            let api = Api::of(server)?;
            Ok(Target { place: format!("at {}", api.base()), way: Way::Service(api) })
        };
        if data.data.is_none() {
            match (server.given_token(), server.given_url()) {
                (Some(_), _) => return service(),
                // never another place than the one that was named
                (None, Some(url)) => {
                    return Err(Failure::from(format!(
                        "OPSPILOT_TOKEN is missing: {url} wants to know who asks\n--data names a directory that no service holds instead"
                    )));
                }
                (None, None) => {}
            }
        }
        let dir = data.data.clone().unwrap_or_else(|| PathBuf::from("./data"));
        if !dir.join(opspilot_ledger::DATABASE).is_file() {
            return Err(Failure::from(format!(
                "there is no database in {}; name the data directory with --data\nthe first `opspilot serve` makes the database and the first accounts",
                dir.display()
            )));
        }
        match Directory::open(&dir) {
            Ok(directory) => Ok(Target { way: Way::Directory(directory), place: format!("in {}", dir.display()) }),
            Err(OpenError::InUse { .. }) if server.given_token().is_some() => service(),
            Err(OpenError::InUse { .. }) => Err(Failure::from(format!(
                "a running service holds {}\nset OPSPILOT_URL and OPSPILOT_TOKEN (an admin's) to go through it",
                dir.display()
            ))),
            Err(error) => Err(Failure::from(error)),
        }
    }
}

impl User {
    pub(crate) fn run(self) -> Outcome {
        match self {
            User::Add { name, role, groups, password_stdin, of } => {
                let target = of.target()?;
                let (password, made) = password(password_stdin)?;
                match target.way {
                    Way::Directory(directory) => {
                        let password_hash = hashed(&password)?;
                        let user = NewUser { name: name.clone(), role, groups, password_hash };
                        directory.write(move |tx, actor| tx.user_create(actor, user))?;
                    }
                    Way::Service(api) => {
                        let body = json!({ "username": name, "role": role.as_str(), "groups": groups, "password": password });
                        waiting(async { Ok(api.post("/api/users", &body).await?) })?;
                    }
                }
                done(&of.server, &target.place, &name, &format!("{name} may log in as {}", role.as_str()), made.then_some(&password));
                Ok(())
            }
            User::Passwd { name, password_stdin, of } => {
                let target = of.target()?;
                let (password, made) = password(password_stdin)?;
                match target.way {
                    Way::Directory(directory) => {
                        let change = UserChange { password_hash: Some(hashed(&password)?), ..UserChange::default() };
                        let user = name.clone();
                        directory.write(move |tx, actor| tx.user_change(actor, &user, change))?;
                    }
                    Way::Service(api) => patch(&api, &name, json!({ "password": password }))?,
                }
                done(
                    &of.server,
                    &target.place,
                    &name,
                    &format!("{name} has a new password; its sessions are over"),
                    made.then_some(&password),
                );
                Ok(())
            }
            User::Disable { name, of } => switch(&name, true, &of),
            User::Enable { name, of } => switch(&name, false, &of),
            User::List { of } => {
                let target = of.target()?;
                let users = match target.way {
                    Way::Directory(directory) => directory.0.read_blocking(|reader| reader.users())?.iter().map(user_json).collect(),
                    Way::Service(api) => waiting(all(&api, "/api/users"))?,
                };
                if of.server.json {
                    say_json(&Json::Array(users));
                    return Ok(());
                }
                complain(&format!("accounts {}", target.place));
                let mut table = Table::new(&["name", "role", "state", "groups", "since"]);
                for user in &users {
                    let state = if user.get("disabled").and_then(Json::as_bool) == Some(true) { "disabled" } else { "active" };
                    let groups: Vec<&str> =
                        user.get("groups").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
                    let cells = [text(user, "username"), text(user, "role"), state, &groups.join(", "), &moment(text(user, "created_at"))];
                    table.row(cells.map(str::to_owned));
                }
                table.print();
                Ok(())
            }
        }
    }
}

impl Key {
    pub(crate) fn run(self) -> Outcome {
        match self {
            Key::Create { name, role, owner, expires_in_days, of } => {
                let target = of.target()?;
                let (id, key) = match target.way {
                    Way::Directory(directory) => {
                        let key = apikey::from_secret(&rand::random());
                        let now = directory.0.clock().now();
                        let expires_at = expires_in_days.map(|days| now.after(Duration::from_secs(u64::from(days) * 86_400)));
                        let new = NewKey { id: ApiKeyId::random(), name, owner, role, hash: apikey::hash(&key), expires_at };
                        let made = directory.write(move |tx, actor| tx.key_create(actor, new))?;
                        (made.id.to_string(), key)
                    }
                    Way::Service(api) => {
                        let mut body = json!({ "name": name, "role": role.as_str() });
                        if let (Some(days), Some(fields)) = (expires_in_days, body.as_object_mut()) {
                            fields.insert("expires_in_days".to_owned(), json!(days));
                        }
                        let made = waiting(async { Ok(api.post("/api/api-keys", &body).await?) })?;
                        (text(&made, "id").to_owned(), text(&made, "key").to_owned())
                    }
                };
                if of.server.json {
                    say_json(&json!({ "id": id, "key": key }));
                } else {
                    say(&key);
                    complain(&format!("{id} is made {}; the key is shown only now", target.place));
                }
                Ok(())
            }
            Key::Revoke { id, of } => {
                let target = of.target()?;
                let id = match target.way {
                    Way::Directory(directory) => {
                        let kept = directory.0.read_blocking(|reader| reader.keys(None, None, MANY))?;
                        let id = KEY.one_of(&id, kept.iter().map(|key| key.id.to_string()))?;
                        let key = ApiKeyId::given(id.clone());
                        directory.write(move |tx, actor| tx.key_revoke(actor, &key, None))?;
                        id
                    }
                    Way::Service(api) => waiting(async {
                        let id = KEY.of_service(&api, &id).await?;
                        api.delete(&format!("/api/api-keys/{}", encoded(&id))).await?;
                        Ok(id)
                    })?,
                };
                done(&of.server, &target.place, &id, &format!("{id} is revoked"), None);
                Ok(())
            }
            Key::List { of } => {
                let target = of.target()?;
                let keys = match target.way {
                    Way::Directory(directory) => {
                        directory.0.read_blocking(|reader| reader.keys(None, None, MANY))?.iter().map(key_json).collect()
                    }
                    Way::Service(api) => waiting(all(&api, "/api/api-keys"))?,
                };
                if of.server.json {
                    say_json(&Json::Array(keys));
                    return Ok(());
                }
                complain(&format!("keys {}", target.place));
                let mut table = Table::new(&["id", "owner", "role", "expires", "last used", "name"]);
                for key in &keys {
                    let cells = [
                        text(key, "id"),
                        text(key, "owner"),
                        text(key, "role"),
                        &moment(text(key, "expires_at")),
                        &moment(text(key, "last_used_at")),
                        text(key, "name"),
                    ];
                    table.row(cells.map(str::to_owned));
                }
                table.print();
                Ok(())
            }
        }
    }
}

/// Shuts an account out, or lets it in again.
fn switch(name: &str, disabled: bool, of: &Of) -> Outcome {
    let target = of.target()?;
    match target.way {
        Way::Directory(directory) => {
            let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
            let user = name.to_owned();
            directory.write(move |tx, actor| tx.user_change(actor, &user, change))?;
        }
        Way::Service(api) => patch(&api, name, json!({ "disabled": disabled }))?,
    }
    let said = if disabled { format!("{name} is shut out") } else { format!("{name} may log in again") };
    done(&of.server, &target.place, name, &said, None);
    Ok(())
}

fn patch(api: &Api, name: &str, body: Json) -> Outcome {
    waiting(async { Ok(api.patch(&format!("/api/users/{}", encoded(name)), &body).await?) }).map(drop)
}

fn user_json(user: &UserRecord) -> Json {
    json!({ "username": user.name, "role": user.role.as_str(), "groups": user.groups, "disabled": user.disabled, "created_at": user.created_at })
}

fn key_json(key: &KeyRecord) -> Json {
    json!({ "id": key.id, "name": key.name, "owner": key.owner, "role": key.role.as_str(), "expires_at": key.expires_at, "last_used_at": key.used_at })
}

fn done(server: &Server, place: &str, name: &str, said: &str, password: Option<&String>) {
    if server.json {
        say_json(&json!({ "name": name, "password": password, "target": place }));
        return;
    }
    say(&format!("{said} ({place})"));
    if let Some(password) = password {
        say(&format!("its password, shown only now: {password}"));
    }
}

fn hashed(password: &str) -> Result<String, Failure> {
    hash_blocking(Cost::default(), password).map_err(|_| Failure::from("the password cannot be hashed"))
}

/// The password from standard input, or a random one; and whether it was made here.
fn password(from_stdin: bool) -> Result<(String, bool), Failure> {
    if !from_stdin {
        return Ok((random_password(), true));
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let mut stderr = std::io::stderr();
        drop(write!(stderr, "password (it will be seen): ").and_then(|()| stderr.flush()));
    }
    let mut line = String::new();
    stdin.lock().take(MAX_INPUT).read_line(&mut line)?;
    let password = line.trim_end_matches(['\n', '\r']).to_owned();
    acceptable(&password).map_err(Failure::from)?;
    Ok((password, false))
}
