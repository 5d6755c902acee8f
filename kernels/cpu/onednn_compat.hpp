#pragma once

// What differs between oneDNN 2.x (Debian 12) and 3.x (Ubuntu 24.04). Included by matmul.cpp only.

#include <dnnl.hpp>

namespace tessera::kernels::cpu {

inline dnnl::matmul::primitive_desc make_matmul(const dnnl::engine& engine,
                                                const dnnl::memory::desc& src,
                                                const dnnl::memory::desc& weights,
                                                const dnnl::memory::desc& dst,
                                                const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, src, weights, dst, attributes};
#else
  return {dnnl::matmul::desc(src, weights, dst), attributes, engine};
#endif
}

}  // namespace tessera::kernels::cpu
