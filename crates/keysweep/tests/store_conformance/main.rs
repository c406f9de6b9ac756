//! What every store must do, whatever database it stands on. Each test runs once an engine.

/// Runs each of these tests on a fresh store of every engine. A new engine is one line here and one in `Fresh`.
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
                    super::$test(crate::fresh::Fresh::$engine().await).await;
                }
            )+
        }
    };
}

mod access;
mod fresh;
mod instances;
mod lazyfree;
mod leases;
mod limits;
mod people;
mod schedule;
mod secrets;
mod simulation;
mod survey;
mod tasks;
