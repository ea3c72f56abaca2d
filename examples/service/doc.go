// Package service is what the order and the payment service share: their settings, their own tables, HTTP with JSON,
// endpoints for operators, and a table of all handled events by which the demo verifies them. Rocketflow's own settings come
// from app.ConfigFromEnv.
package service
