//! Serde writes every type as its text and reads it as strictly as `FromStr`.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use runtree_id::{
    BranchName, CommitId, DirectoryName, ExternalRef, IdEnding, OwnerId, RunId, SessionId, Slug,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

trait Text: FromStr<Err: Debug> + Display + Debug + PartialEq {}
impl<T: FromStr<Err: Debug> + Display + Debug + PartialEq> Text for T {}

fn round_trip<T: Text + Serialize + DeserializeOwned>(good: &str, bad: &str) {
    let value: T = good.parse().expect(good);
    let json = serde_json::to_value(&value).expect("is JSON");
    assert_eq!(json, Value::String(good.to_owned()));
    let read: T = serde_json::from_value(json).expect("was written so");
    assert_eq!(read, value);
    assert!(
        serde_json::from_value::<T>(Value::String(bad.to_owned())).is_err(),
        "{bad}"
    );
    assert!(serde_json::from_value::<T>(Value::Null).is_err());
}

#[test]
fn every_type_is_its_text() {
    round_trip::<RunId>(
        "run_01h455vb4pex5vsknk084sn02q",
        "RUN_01h455vb4pex5vsknk084sn02q",
    );
    round_trip::<OwnerId>(
        "own_01h455vb4pex5vsknk084sn02q",
        "run_01h455vb4pex5vsknk084sn02q",
    );
    round_trip::<IdEnding>("84sn02q", "02q");
    round_trip::<SessionId>(
        "2eb8aa08-aa98-11ea-b4aa-73b441d16380",
        "2eb8aa08aa9811eab4aa73b441d16380",
    );
    round_trip::<ExternalRef>("PROJ-1", "../x");
    round_trip::<Slug>("fix-tests", "Fix tests");
    round_trip::<DirectoryName>("fix-tests", "con");
    round_trip::<BranchName>("feat/a", "feat//a");
    round_trip::<CommitId>("9fceb02d0ae598e95dc970b74767f19372d61af8", "9fceb02");
}
