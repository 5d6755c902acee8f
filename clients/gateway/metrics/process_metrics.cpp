#include "clients/gateway/metrics/process_metrics.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace tessera::gateway {
namespace {

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

double resident_bytes() {
  double pages = 0;
  std::ifstream statm("/proc/self/statm");
  statm >> pages >> pages;  // The second number.
  return pages * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double open_descriptors() {
  std::error_code error;
  double count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    (void)entry;
    ++count;
  }
  return count;
}

}  // namespace

void add_process_metrics(MetricFamilies& out, std::chrono::system_clock::time_point started_at) {
  rusage usage{};
  rlimit limit{};
  getrusage(RUSAGE_SELF, &usage);
  getrlimit(RLIMIT_NOFILE, &limit);
  out.counter("process_cpu_seconds_total", "CPU time of the gateway's process.")
      .sample(seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
  out.gauge("process_resident_memory_bytes", "Memory of the gateway's process.")
      .sample(resident_bytes());
  out.gauge("process_open_fds", "Descriptors that the gateway has open.")
      .sample(open_descriptors());
  out.gauge("process_max_fds", "Descriptors that it may have open.")
      .sample(static_cast<double>(limit.rlim_cur));
  out.gauge("process_start_time_seconds", "When the gateway began, in Unix time.")
      .sample(std::chrono::duration<double>(started_at.time_since_epoch()).count());
}

}  // namespace tessera::gateway
