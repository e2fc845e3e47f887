//! Kubernetes: watches, the object index, Secrets, Kubernetes Events, finalizers
