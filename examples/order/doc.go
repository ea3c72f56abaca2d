// Package order is the order service: it reserves stock for an order, waits for the payment, and confirms or closes the
// order. Read flow.go first, which holds the saga; the rest is tables and HTTP.
package order
