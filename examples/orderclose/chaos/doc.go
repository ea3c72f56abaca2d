// Package chaos holds no code: its tests have the order-close flow suffer, and check each promise afterwards. Faults says
// what may befall one order, a fault at a time; Schedules draws from a seed what customers do, what goes wrong and when.
//
//	go test ./examples/orderclose/chaos -run Schedules -schedules 1000
//	go test ./examples/orderclose/chaos -run Schedules -seed 42 -v
package chaos
