# SPDX-License-Identifier: Apache-2.0
# The targets that a consumer links. Which header belongs to which one is read off its includes:
# a component is every header that reaches the component's library, itself or through another header.

# In this order, since a header that reaches two components belongs to the later one.
set(segmed_components nifti experiment mpi cuda nccl)
set(segmed_library_nifti "<(nifti|znzlib|zlib)")
set(segmed_library_experiment "<png\\.h")
set(segmed_library_mpi "<mpi\\.h")
set(segmed_library_cuda "<(cuda|cudnn|cublas)")
set(segmed_library_nccl "<nccl")
set(segmed_compiled_by_nvcc cuda nccl)  # which no other compiler reads

# The component of a header, a test or an example: a name of the list above, or "segmed".
function(segmed_component_of result file)
  get_property(known GLOBAL PROPERTY "segmed_component ${file}")
  if(known)
    set(${result} ${known} PARENT_SCOPE)
    return()
  endif()
  set(order segmed ${segmed_components})
  set(component segmed)
  set_property(GLOBAL PROPERTY "segmed_component ${file}" segmed)
  if(file MATCHES "/backend/backend\\.hpp$")  # includes segmed::cuda under nvcc alone
    set(${result} segmed PARENT_SCOPE)
    return()
  endif()
  file(STRINGS ${file} lines REGEX "^#include <")
  foreach(line IN LISTS lines)
    set(reached segmed)
    if(line MATCHES "<(segmed/[^>]+)>")
      set(header ${PROJECT_SOURCE_DIR}/include/${CMAKE_MATCH_1})
      if(EXISTS ${header})
        segmed_component_of(reached ${header})
      endif()
    else()
      foreach(name IN LISTS segmed_components)
        if(line MATCHES "${segmed_library_${name}}")
          set(reached ${name})
        endif()
      endforeach()
    endif()
    list(FIND order ${component} mine)
    list(FIND order ${reached} theirs)
    if(theirs GREATER mine)
      set(component ${reached})
    endif()
  endforeach()
  set_property(GLOBAL PROPERTY "segmed_component ${file}" ${component})
  set(${result} ${component} PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/segmed/*.hpp)
set(headers_of_the_kernels ${headers})
list(FILTER headers_of_the_kernels INCLUDE REGEX "/backend/kernels/")
list(FILTER headers EXCLUDE REGEX "/backend/kernels/")
foreach(header IN LISTS headers)
  segmed_component_of(component ${header})
  list(APPEND headers_of_${component} ${header})
endforeach()

# An interface target with its own set of headers, each of which is verified to compile alone.
function(segmed_add_component name)
  add_library(segmed_${name} INTERFACE)
  add_library(segmed::${name} ALIAS segmed_${name})
  set_target_properties(segmed_${name} PROPERTIES EXPORT_NAME ${name}
                        VERIFY_INTERFACE_HEADER_SETS TRUE)
  target_sources(segmed_${name} INTERFACE FILE_SET HEADERS
                 BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${headers_of_${name}})
  target_link_libraries(segmed_${name} INTERFACE ${ARGN})
  set(segmed_available ${segmed_available} ${name} PARENT_SCOPE)
endfunction()

# ---- segmed::segmed: everything that needs no library but Eigen
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(Eigen3 3.4 QUIET NO_MODULE)
if(NOT Eigen3_FOUND)
  message(FATAL_ERROR "segmed: Eigen 3.4 was not found; install the Debian package libeigen3-dev")
endif()

add_library(segmed INTERFACE)
add_library(segmed::segmed ALIAS segmed)
set_target_properties(segmed PROPERTIES VERIFY_INTERFACE_HEADER_SETS TRUE
                      INTERFACE_HEADER_SETS_TO_VERIFY HEADERS)
target_sources(segmed INTERFACE
  FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${headers_of_segmed}
  # A kernel is included once per instruction set by its table: it is no header of its own.
  FILE_SET kernels TYPE HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include
  FILES ${headers_of_the_kernels})
target_link_libraries(segmed INTERFACE Eigen3::Eigen Threads::Threads)
target_compile_features(segmed INTERFACE cxx_std_20)
# CMake 3.25.1 does not know C++20 in CUDA, and would compile as C++17 without a word.
target_compile_options(segmed INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fconcepts-diagnostics-depth=2>)
set(segmed_available segmed)

# ---- segmed::kernels: the same kernels, compiled once for all instruction sets, and what else is
# the same in every program
if(EXISTS ${PROJECT_SOURCE_DIR}/src/kernels.cpp)
  add_library(segmed_kernels STATIC ${PROJECT_SOURCE_DIR}/src/kernels.cpp
              ${PROJECT_SOURCE_DIR}/src/compiled.cpp)
  if(SEGMED_NATIVE)
    set_source_files_properties(${PROJECT_SOURCE_DIR}/src/compiled.cpp
                                PROPERTIES COMPILE_OPTIONS -march=native)
  endif()
  add_library(segmed::kernels ALIAS segmed_kernels)
  set_target_properties(segmed_kernels PROPERTIES EXPORT_NAME kernels OUTPUT_NAME segmed-kernels
                        POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(segmed_kernels PUBLIC segmed)
  target_compile_definitions(segmed_kernels INTERFACE SEGMED_KERNELS_LINKED)
  list(APPEND segmed_available kernels)
endif()

# ---- segmed::nifti
find_package(NIFTI QUIET MODULE)
find_package(ZLIB QUIET)
if(NIFTI_FOUND AND ZLIB_FOUND)
  segmed_add_component(nifti segmed NIFTI::nifti2 ZLIB::ZLIB)
else()
  message(STATUS "segmed: no segmed::nifti: install libnifti2-dev and zlib1g-dev for it")
endif()

# ---- segmed::experiment
find_package(PNG QUIET)
if(PNG_FOUND AND TARGET segmed_nifti)
  segmed_add_component(experiment segmed_nifti PNG::PNG)
else()
  message(STATUS "segmed: no segmed::experiment: install libpng-dev and what "
                 "segmed::nifti needs for it")
endif()

# ---- segmed::mpi
set(MPI_CXX_SKIP_MPICXX ON)  # the C API alone
if(NOT SEGMED_STATIC)
  find_package(MPI QUIET COMPONENTS CXX)
endif()
if(MPI_CXX_FOUND)
  segmed_add_component(mpi segmed MPI::MPI_CXX)
elseif(NOT SEGMED_STATIC)
  message(STATUS "segmed: no segmed::mpi: install libopenmpi-dev and openmpi-bin for it")
endif()

# ---- segmed::cuda
if(SEGMED_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80;90;100-virtual" CACHE STRING "GPU architectures")
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit 13 REQUIRED)
  find_package(CUDNN 9 REQUIRED MODULE)
  # One runtime, not nvcc's static one beside that of the component.
  set(cudart CUDA::cudart)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  if(SEGMED_STATIC)
    set(cudart CUDA::cudart_static)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  endif()
  segmed_add_component(cuda segmed ${cudart} CUDNN::cudnn)
  target_compile_definitions(segmed_cuda INTERFACE SEGMED_CUDNN)
  set_target_properties(segmed_cuda PROPERTIES VERIFY_INTERFACE_HEADER_SETS FALSE)  # nvcc's alone
  if(TARGET segmed_kernels)  # nvcc does not compile the processor's kernels, it links them
    target_link_libraries(segmed_cuda INTERFACE segmed_kernels)
  endif()
endif()

# ---- segmed::nccl
if(TARGET segmed_cuda AND TARGET segmed_mpi)
  find_package(NCCL 2.28 QUIET MODULE)
endif()
if(NCCL_FOUND)
  segmed_add_component(nccl segmed_cuda segmed_mpi NCCL::nccl)
  set_target_properties(segmed_nccl PROPERTIES VERIFY_INTERFACE_HEADER_SETS FALSE)
elseif(TARGET segmed_cuda AND NOT SEGMED_STATIC)
  message(STATUS "segmed: no segmed::nccl: install NCCL 2.28 or newer (nccl.h and libnccl.so, beside "
                 "the CUDA Toolkit or where NCCL_ROOT says) and what segmed::mpi needs for it")
endif()
