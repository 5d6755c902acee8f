"""compute-sanitizer over the GPU tests: memcheck on all, racecheck on those of single kernels.

    python3 tests/sanitize_gpu.py [--tests build/release/tests] [--tools memcheck,racecheck]
                                  [--only attention] [--jobs N] [--timeout 600]

For a machine with a GPU. Every test case is a run of its own, several at a time, since most of a run
is the tool's work on the CPU. Prints a line a run and exits with 1 if anything was reported, failed or
did not end in time. What racecheck says of the kernels inside cuBLASLt alone is counted apart and
is no failure: the version in CUDA 13.0 does not follow all that their blocks hand to one another.
"""

import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time

KERNELS = ["attention_test", "attention_segments_test", "cuda_operations_test", "fused_gemm_test",
           "small_gemm_test", "layers_test"]
TESTS = {"memcheck": [*KERNELS, "cuda_backend_test"], "racecheck": KERNELS}
# Needs two kernels at once, which the tools do not run.
NEVER = ["Layers.SameBitsWhileTheMemoryIsBusy"]
# Of the host's memory: racecheck was seen to take 17 GB for one run of layers_test.
RUN_BYTES = 20 * 10**9
LIBRARY = re.compile(r"nvjet_|cutlass_|cublas")
ACCESS = re.compile(r"(?:between|and) (?:Read|Write) access at (?:void )?(\S+)")


def cases_of(binary):
    listing = subprocess.run([binary, "--gtest_list_tests"], capture_output=True, text=True,
                             check=True).stdout
    suite = ""
    for line in listing.splitlines():
        if re.match(r"[\w/]+\.", line):
            suite = line.split()[0]
        elif line.startswith("  ") and suite + line.split()[0] not in NEVER:
            yield suite + line.split()[0]


def reports_of(tool, output):
    """How many errors are ours, and how many a library's alone."""
    if tool == "memcheck":
        found = re.search(r"ERROR SUMMARY: (\d+) error", output)
        return (int(found[1]) if found else 1), 0
    if "RACECHECK SUMMARY" not in output:
        return 1, 0
    ours = library = 0
    for report in re.split(r"^========= (?=Error:|Warning:)", output, flags=re.MULTILINE)[1:]:
        names = ACCESS.findall(report)
        if names and all(LIBRARY.match(name) for name in names):
            library += 1
        else:
            ours += 1
    return ours, library


def run(tool, binary, case, timeout_s):
    """The line to print, and whether all is well."""
    start = time.monotonic()
    command = ["compute-sanitizer", "--tool", tool, "--print-limit", "0", binary,
               "--gtest_filter=" + case]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", start_new_session=True) as process:
        try:
            output = process.communicate(timeout=timeout_s)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = process.communicate()[0] + "\ndid not end in time"
    ours, library = reports_of(tool, output)
    passed = re.search(r"^\[  PASSED  \] [1-9]", output, re.MULTILINE) is not None
    right = passed and ours == 0
    line = f"{'ok    ' if right else 'FAILED'} {tool} {case}, {time.monotonic() - start:.0f} s"
    if library:
        line += f", {library} reports of cuBLASLt's kernels"
    if not right:
        line += "\n" + "\n".join("    " + text for text in output.splitlines()[-40:])
    return line, right


def jobs_of_this_host():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, memory // RUN_BYTES))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tests", default="build/release/tests")
    parser.add_argument("--tools", default="memcheck,racecheck")
    parser.add_argument("--only", default="", help="part of a test program's name")
    parser.add_argument("--jobs", type=int, default=jobs_of_this_host())
    parser.add_argument("--timeout", type=float, default=600, help="seconds of one run")
    options = parser.parse_args()
    runs = []
    for tool in options.tools.split(","):
        for name in TESTS[tool]:
            binary = os.path.join(options.tests, name)
            if options.only in name:
                runs += [(tool, binary, case) for case in cases_of(binary)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for done in concurrent.futures.as_completed(
                pool.submit(run, *each, options.timeout) for each in runs):
            line, right = done.result()
            print(line, flush=True)
            failed += not right
    print(f"{len(runs) - failed} of {len(runs)} runs without a report")
    sys.exit(0 if runs and failed == 0 else 1)


if __name__ == "__main__":
    main()
