//! A configured path: the folder it names, and the pattern below it.

use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// A path in which names may hold wildcards.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// The part before the first wildcard, without the file's name.
    base: PathBuf,
    /// The names below it, outermost first; the last is the file's.
    names: Vec<Name>,
}

/// One name of a path.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    /// This very name.
    Literal(String),
    /// Every name that matches.
    Glob(GlobMatcher),
}

impl Name {
    /// Whether the name is meant.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Name::Literal(literal) => literal == name,
            // A name that begins with a dot is hidden from wildcards, as in a shell, unless the pattern begins with one.
            Name::Glob(glob) => (!name.starts_with('.') || glob.glob().glob().starts_with('.')) && glob.is_match(name),
        }
    }
}

/// The path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPattern {
    #[error("not an absolute path; write it from the root, such as /var/log/app/*.log")]
    Relative,
    #[error("a path may not contain ..; name the folder it means")]
    Parent,
    #[error("** is not supported; write each level, such as /var/log/*/*.log")]
    Recursive,
    #[error("the path names no file")]
    NoFile,
    #[error("not a pattern: {0}")]
    Glob(String),
}

fn has_wildcard(name: &str) -> bool {
    name.contains(['*', '?', '[', '{'])
}

impl Pattern {
    /// Reads a configured path.
    pub(crate) fn parse(text: &str) -> Result<Pattern, BadPattern> {
        let path = Path::new(text);
        if !path.is_absolute() {
            return Err(BadPattern::Relative);
        }
        if text.ends_with('/') {
            return Err(BadPattern::NoFile);
        }
        let mut names = Vec::new();
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(BadPattern::Parent),
                Component::Normal(name) => names.push(name.to_str().unwrap_or_default()),
            }
        }
        if names.iter().any(|name| name.contains("**")) {
            return Err(BadPattern::Recursive);
        }
        let last = names.len().checked_sub(1).ok_or(BadPattern::NoFile)?;
        let fixed = names.iter().position(|name| has_wildcard(name)).unwrap_or(last);
        let (base, below) = names.split_at_checked(fixed).ok_or(BadPattern::NoFile)?;
        let names = below
            .iter()
            .map(|name| {
                if !has_wildcard(name) {
                    return Ok(Name::Literal((*name).to_owned()));
                }
                let glob = GlobBuilder::new(name).literal_separator(true).backslash_escape(true).build();
                glob.map(|glob| Name::Glob(glob.compile_matcher())).map_err(|error| BadPattern::Glob(error.kind().to_string()))
            })
            .collect::<Result<Vec<_>, BadPattern>>()?;
        Ok(Pattern { base: Path::new("/").join(base.iter().collect::<PathBuf>()), names })
    }

    /// The folder that is certain.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// The names below it.
    pub(crate) fn names(&self) -> &[Name] {
        &self.names
    }

    /// Whether it names one file.
    pub(crate) fn is_literal(&self) -> bool {
        self.names.iter().all(|name| matches!(name, Name::Literal(_)))
    }

    /// Whether `path` is one of the files meant.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.base) else { return false };
        let parts: Vec<&str> = below.components().filter_map(|part| part.as_os_str().to_str()).collect();
        parts.len() == self.names.len() && self.names.iter().zip(parts).all(|(name, part)| name.matches(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_before_its_first_wildcard() {
        for (text, base, below, literal) in [
            ("/var/log/app.log", "/var/log", 1, true),
            ("/var/log/*.log", "/var/log", 1, false),
            ("/var/log/*/app.log", "/var/log", 2, false),
            ("/srv/{a,b}/log/x-?.log", "/srv", 3, false),
            ("/app.log", "/", 1, true),
        ] {
            let pattern = Pattern::parse(text).unwrap();
            assert_eq!((pattern.base(), pattern.names().len(), pattern.is_literal()), (Path::new(base), below, literal), "{text}");
        }
    }

    #[test]
    fn only_the_files_meant_match() {
        let pattern = Pattern::parse("/srv/*/log/app-[0-9]*.log").unwrap();
        for (path, meant) in [
            ("/srv/shop/log/app-1.log", true),
            ("/srv/shop/log/app-x.log", false),
            ("/srv/shop/log/sub/app-1.log", false),
            ("/srv/.hidden/log/app-1.log", false),
            ("/etc/shop/log/app-1.log", false),
        ] {
            assert_eq!(pattern.matches(Path::new(path)), meant, "{path}");
        }
        assert!(Pattern::parse("/srv/.*.log").unwrap().matches(Path::new("/srv/.a.log")));
    }
}
