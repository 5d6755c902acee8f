#include "common/check.hpp"

#include <cstdio>
#include <cstdlib>

namespace tessera::detail {

void check_failed(const char* expression, const std::string& values,
                  const std::source_location& where) {
  std::fprintf(stderr, "%s:%u: CHECK failed in %s: %s%s%s\n", where.file_name(), where.line(),
               where.function_name(), expression, values.empty() ? "" : ", with ", values.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace tessera::detail
