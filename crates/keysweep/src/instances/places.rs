//! Places for work that requests cause. Each piece takes a thread, connections and memory for what a server replies, so that a
//! process has a number of places, of which one project gets a part.

use std::sync::{Arc, Mutex, PoisonError};

/// The places of one process. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    most: usize,
    of_a_project: usize,
    /// The projects of the work in progress, each as often as it has any.
    projects: Arc<Mutex<Vec<String>>>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The project has as many as it may.
    OfTheProject,
    /// All places are taken.
    OfTheProcess,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    project: String,
    projects: Arc<Mutex<Vec<String>>>,
}

impl Places {
    /// Returns this number of places, of which one project gets a part.
    pub fn new(most: usize, of_a_project: usize) -> Self {
        Self { most, of_a_project, projects: Arc::default() }
    }

    /// Takes a place for work of this project.
    pub fn take(&self, project: &str) -> Result<Place, NoPlace> {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if projects.iter().filter(|taken| *taken == project).count() >= self.of_a_project {
            return Err(NoPlace::OfTheProject);
        }
        if projects.len() >= self.most {
            return Err(NoPlace::OfTheProcess);
        }
        projects.push(project.to_owned());
        Ok(Place { project: project.to_owned(), projects: Arc::clone(&self.projects) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = projects.iter().position(|project| *project == self.project) {
            projects.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_leaves_places_for_others() {
        let places = Places::new(4, 2);
        let (first, _second) = (places.take("one").expect("a place"), places.take("one").expect("a place"));
        assert_eq!(places.take("one").map(drop), Err(NoPlace::OfTheProject));
        let (_third, _fourth) = (places.take("two").expect("a place"), places.take("two").expect("a place"));
        assert_eq!(places.take("three").map(drop), Err(NoPlace::OfTheProcess));
        drop(first);
        assert!(places.take("three").is_ok(), "a place that was given back");
    }
}
