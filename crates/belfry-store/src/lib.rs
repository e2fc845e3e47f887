//! The durable log, object states, lanes and deliveries
