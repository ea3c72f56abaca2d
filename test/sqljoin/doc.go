// Package sqljoin tests that transactions of sqlx and GORM publish through outbox.JoinSQL. It is a module of its own, so that
// rocketflow depends on neither. It contains only tests.
package sqljoin
