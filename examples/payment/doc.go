// Package payment is the payment service: it charges orders, takes the bank's response, and refunds
// what it has captured for an order that was closed. Read flow.go first.
package payment
