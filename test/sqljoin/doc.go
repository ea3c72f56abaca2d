// Package sqljoin holds no code: its tests publish in transactions of sqlx and GORM by outbox.JoinSQL. It is a module of its
// own, so that rocketflow doesn't depend on either.
package sqljoin
