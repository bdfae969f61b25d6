//! The core against simulated TaskManagers.

mod chaos;
mod life;
mod sim;
mod slots;
