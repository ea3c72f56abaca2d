// Package crash tests that no crash breaks a promise. It kills publishers and consumers with SIGKILL at each step, starts
// them again, and checks that every committed event was handled once and in order, and that no other event was. Publishers
// and consumers are processes of their own: the test binary, started again. It contains only tests.
package crash
