#pragma once

#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/backend.hpp"

namespace tessera::testing {

// Base of tests that need a GPU: skipped, visibly, where there is none.
class GpuTest : public ::testing::Test {
 protected:
  static bool has_gpu() { return kernels::cuda_device_count() > 0; }
  static void SetUpTestSuite() {
    if (!has_gpu()) std::puts("ALL TESTS SKIPPED: no GPU");  // what ctest looks for
  }
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no GPU";
  }
};

}  // namespace tessera::testing
