package main

import (
	"os"
	"runtime"
	"syscall"
)

// tunables is the environment variable by which glibc is set up when a process starts.
const tunables = "GLIBC_TUNABLES"

// hugePages starts the process anew with glibc asking for huge pages, unless its tunables were set by
// somebody. XLA takes a program's temporary memory from the system for each run: in small pages a fifth of a
// step on a CPU goes to faults. Where it fails, or another library ignores it, the run goes on without.
func hugePages() {
	if _, set := os.LookupEnv(tunables); set || runtime.GOOS != "linux" {
		return
	}
	if self, err := os.Executable(); err == nil {
		syscall.Exec(self, os.Args, append(os.Environ(), tunables+"=glibc.malloc.hugetlb=1"))
	}
}
