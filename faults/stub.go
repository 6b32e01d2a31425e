package main

import "context"

func runGhosts(ctx context.Context, s *suite) error    { return nil }
func runReturn(ctx context.Context, s *suite) error    { return nil }
func runHeal(ctx context.Context, s *suite) error      { return nil }
func runOutOfBand(ctx context.Context, s *suite) error { return nil }
func runLeaks(ctx context.Context, s *suite) error     { return nil }
