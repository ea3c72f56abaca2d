// Package acceptance has tests alone. They show what no single package can show of itself: all parts together on a real
// PostgreSQL and a real RocketMQ, while input is bad, checks are slow, payments race their deadlines, or the broker dies.
package acceptance
