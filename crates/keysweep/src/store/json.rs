//! JSON that is stored, with the version of its form: within the document, or in a column beside it.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    StoreError,
    db::{Row, unreadable},
};

/// A document with the version of its form.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    document: T,
}

/// Writes a document. `what`: what it is, in the plural, for the error.
pub(super) fn write<T: Serialize + ?Sized>(what: &str, document: &T) -> Result<String, StoreError> {
    serde_json::to_string(document).map_err(|error| StoreError::Internal(format!("{what} cannot be written: {error}")))
}

/// Writes a document with its version.
pub(super) fn write_versioned<T: Serialize>(what: &str, version: u32, document: &T) -> Result<String, StoreError> {
    write(what, &Versioned { version, document })
}

/// Reads a document. `what`: its column or what it is, for the error.
pub(super) fn read<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| unreadable(what, error))
}

/// Reads a document of this version.
pub(super) fn read_versioned<T: DeserializeOwned>(what: &str, version: u32, json: &str) -> Result<T, StoreError> {
    match read::<Versioned<T>>(what, json)? {
        Versioned { version: found, document } if found == version => Ok(document),
        Versioned { version: other, .. } => Err(unreadable(what, format!("version {other} is not known"))),
    }
}

/// Reads the document in a column, whose version is in the column `version`; `None`: there is none, or another version wrote it.
pub(super) fn read_column<T: DeserializeOwned>(row: &Row, column: &str, version: u32) -> Result<Option<T>, StoreError> {
    let (found, json): (Option<u32>, Option<String>) = (row.get("version")?, row.get(column)?);
    Ok(json.filter(|_| found == Some(version)).and_then(|json| serde_json::from_str(&json).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Document {
        keys: u64,
    }

    #[test]
    fn a_document_comes_back_in_its_own_version_only() {
        let json = write_versioned("numbers", 2, &Document { keys: 7 }).expect("JSON");
        assert_eq!(json, r#"{"version":2,"keys":7}"#);
        assert_eq!(read_versioned::<Document>("numbers", 2, &json).expect("readable"), Document { keys: 7 });
        for (version, json, cause) in
            [(1, json.as_str(), "version 2 is not known"), (2, "{", "EOF"), (2, r#"{"keys":7}"#, "version")]
        {
            let error = read_versioned::<Document>("numbers", version, json).expect_err(json).to_string();
            assert!(error.contains("numbers") && error.contains(cause), "{error}");
        }
    }
}
