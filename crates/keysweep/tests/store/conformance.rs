//! What the store must do on either database engine. Each test runs once per engine.

/// Runs each of these tests on a new store of every engine. A new engine is one line here and one in `Fresh`.
macro_rules! on_every_engine {
    ($($test:ident),+ $(,)?) => {
        on_every_engine!(@ sqlite: $($test),+);
        on_every_engine!(@ postgres: $($test),+);
    };
    (@ $engine:ident: $($test:ident),+) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    super::$test(crate::conformance::fresh::Fresh::$engine().await).await;
                }
            )+
        }
    };
}

mod access;
mod audit;
mod documents;
mod estimates;
mod fleet;
mod fresh;
mod hold;
mod instances;
mod lazyfree;
mod leases;
mod limits;
mod overview;
mod people;
mod schedule;
mod secrets;
mod simulation;
mod surveys;
mod tasks;
