// Package payment is the payment service: it is asked for a charge by an order, takes the bank's answer, and gives back
// what it has captured for an order that was closed. Read flow.go first.
package payment
