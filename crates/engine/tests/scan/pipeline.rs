//! Pipelines: many commands in one round trip over a real connection.

use keysweep_engine::{
    Credentials, Stop,
    link::{Link, LinkError, Pipeline, Plain},
};
use keysweep_harness::{Flavor, Server};

fn connect(server: &Server) -> Link {
    let address = server.address().to_string().parse().expect("an address");
    Link::open(&Plain, &address, &Credentials::default(), "keysweep-test", &Stop::new()).expect("a connection")
}

fn size(link: &mut Link) -> Option<i64> {
    link.call(&[b"DBSIZE"]).expect("a reply").integer()
}

#[test]
fn all_commands_of_a_pipeline_run_in_one_round_trip() {
    let server = Server::start(Flavor::Valkey91);
    let mut link = connect(&server);
    let mut pipeline = Pipeline::default();
    for number in 0..2_000 {
        pipeline.add(&[b"SET", format!("key:{number}").as_bytes(), &[b'v'; 100]]);
    }
    link.run(&pipeline).expect("the server accepts all");
    assert_eq!(size(&mut link), Some(2_000));
}

#[test]
fn the_first_error_reply_is_returned_and_the_link_stays_usable() {
    let server = Server::start(Flavor::Redis70);
    let mut link = connect(&server);
    let mut pipeline = Pipeline::default();
    pipeline.add(&[b"SET", b"text", b"value"]);
    pipeline.add(&[b"INCR", b"text"]);
    pipeline.add(&[b"NOSUCHCOMMAND"]);
    pipeline.add(&[b"SET", b"other", b"value"]);
    match link.run(&pipeline) {
        Err(LinkError::Server(error)) => assert!(error.to_string().contains("not an integer"), "{error}"),
        other => panic!("expected an error reply, got {other:?}"),
    }
    assert_eq!(size(&mut link), Some(2), "commands after the failed one ran");
}
