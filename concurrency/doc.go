// Package concurrency stub
package concurrency
