// Package service is the plumbing that the example services share and that says nothing about rocketflow: settings from
// the environment, HTTP with JSON, health, a schema of one's own, and an audit of handled events.
package service
