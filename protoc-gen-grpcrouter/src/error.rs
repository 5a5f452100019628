//! What can be wrong with a request, a proto file or a builder: everything is collected, nothing stops at the first.
//! Each line reads `file:line:col: subject: what is wrong; what to do`.

mod problem;

use std::fmt;

pub(crate) use problem::Problem;

/// Everything that is wrong, one line each: `file:line:col: what`.
///
/// `Debug` prints the same text as `Display`, so that a build script may return this error from `main`.
pub struct Error {
    faults: Vec<Fault>,
}

impl Error {
    /// The single things that are wrong, in the order of the files and of their lines. Never empty.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // With several faults no single one is the source.
        match self.faults.as_slice() {
            [only] => std::error::Error::source(&only.problem),
            _ => None,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Fault::from(problem).into()
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Fault {
    position: Option<Position>,
    subject: Option<String>,
    problem: Problem,
}

impl Fault {
    pub(crate) fn new(position: Position, subject: String, problem: Problem) -> Self {
        Self { position: Some(position), subject: Some(subject), problem }
    }

    pub(crate) fn at(position: Position, problem: Problem) -> Self {
        Self { position: Some(position), subject: None, problem }
    }

    /// The proto file, as it was imported; `None` for what is not about a file, such as a parameter.
    pub fn file(&self) -> Option<&str> {
        self.position.as_ref().map(|position| position.file.as_str())
    }

    /// Line and column, both counted from 1; `None` where the compiler of the proto files did not tell.
    pub fn line_and_column(&self) -> Option<(u32, u32)> {
        self.position.as_ref().and_then(|position| position.line_and_column)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        if let Some(subject) = &self.subject {
            write!(f, "{subject}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self { position: None, subject: None, problem }
    }
}

/// A place in a proto file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) file: String,
    pub(crate) line_and_column: Option<(u32, u32)>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line_and_column {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// Collects faults while the work goes on.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn push(&mut self, fault: impl Into<Fault>) {
        self.0.push(fault.into());
    }

    pub(crate) fn extend(&mut self, error: Error) {
        self.0.extend(error.faults);
    }

    /// Keeps the value, or the error among the others.
    pub(crate) fn take<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.extend(error)).ok()
    }

    /// `value`, if nothing was wrong.
    pub(crate) fn or<T>(self, value: T) -> Result<T, Error> {
        if self.0.is_empty() { Ok(value) } else { Err(Error { faults: self.0 }) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn all_faults_are_printed_one_per_line_by_debug_too() {
        let mut faults = Faults::default();
        faults.push(Fault::new(
            Position { file: "a.proto".into(), line_and_column: Some((6, 3)) },
            "service b.v1.S".into(),
            Problem::PathPrefix { found: "api/".into() },
        ));
        faults.push(Problem::MissingFile { name: "b.proto".into() });

        let error = faults.or(()).expect_err("two faults");

        let text = "a.proto:6:3: service b.v1.S: `path_prefix` must look like \"/api/v1\" (a leading '/', no trailing '/', \
                    segments of letters, digits and -._~), found \"api/\"\n\
                    the request names b.proto but does not hold it";
        assert_eq!(format!("{error}"), text);
        assert_eq!(format!("{error:?}"), text);
        assert_eq!(error.faults()[0].line_and_column(), Some((6, 3)));
    }

    #[test]
    fn no_fault_gives_the_value() {
        assert_eq!(Faults::default().or(7).expect("no fault"), 7);
    }
}
