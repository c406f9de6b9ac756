//! Two changes of the same instance at the same time: each is applied, and neither undoes the other.

use crate::model::Instance;

/// Returns the `current` instance with the change from `before` to `after` applied; fields that the change leaves alone keep
/// their current values.
///
/// URL, credentials, TLS files and address map are one unit: a password is never used with an address other than its own.
pub(super) fn three_way_merge(current: Instance, before: &Instance, after: &Instance) -> Instance {
    let is_same_connection = before.url == after.url
        && before.username == after.username
        && before.password == after.password
        && before.sentinel_username == after.sentinel_username
        && before.sentinel_password == after.sentinel_password
        && before.ca_pem == after.ca_pem
        && before.cert_pem == after.cert_pem
        && before.client_key == after.client_key
        && before.server_name == after.server_name
        && before.address_map == after.address_map;
    let mut merged = match is_same_connection {
        true => current.clone(),
        false => Instance {
            stats: current.stats.clone(),
            stats_error: current.stats_error.clone(),
            unreachable: current.unreachable.clone(),
            ..after.clone()
        },
    };
    fn pick<T: PartialEq + Clone>(current: &T, before: &T, after: &T) -> T {
        if before == after { current.clone() } else { after.clone() }
    }
    merged.name = pick(&current.name, &before.name, &after.name);
    merged.pace = pick(&current.pace, &before.pace, &after.pace);
    merged.window = pick(&current.window, &before.window, &after.window);
    merged.window_binds_manual =
        pick(&current.window_binds_manual, &before.window_binds_manual, &after.window_binds_manual);
    merged.manage_lazyfree = pick(&current.manage_lazyfree, &before.manage_lazyfree, &after.manage_lazyfree);
    merged.labels = pick(&current.labels, &before.labels, &after.labels);
    merged.sampling = pick(&current.sampling, &before.sampling, &after.sampling);
    merged.paused = pick(&current.paused, &before.paused, &after.paused);
    if merged.url != current.url {
        // The stats are those of another server.
        (merged.stats, merged.stats_error, merged.unreachable) = (None, None, None);
    }
    merged
}
