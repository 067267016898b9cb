//! `opspilot serve`: the service.

use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use crate::{
    config::{Flags, Sources},
    service::{self, Launch, Service, greet},
};

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The configuration file; without one everything has a safe default
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory [default: ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address and port [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl Serve {
    pub(crate) fn run(self) -> Outcome {
        let sources = Sources::of_process(self.config, Flags { listen: self.listen, data: self.data });
        service::run(Launch { sources, quiet: false }, async |service: &Service| {
            if let Err(error) = greet(service) {
                service.not_greeted(&error);
            }
            std::future::pending().await
        })
    }
}
