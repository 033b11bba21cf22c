# SPDX-License-Identifier: Apache-2.0
# segmed's own programs: tests, examples, benchmarks.

set(segmed_linked ${segmed_available})
list(REMOVE_ITEM segmed_linked mpi ${segmed_compiled_by_nvcc})
list(TRANSFORM segmed_linked PREPEND segmed::)

# Leaves out the sources whose component is not there, with one line each.
function(segmed_drop_unavailable list)
  set(kept "")
  foreach(source IN LISTS ${list})
    segmed_component_of(component ${source})
    if(component IN_LIST segmed_compiled_by_nvcc)
      continue()
    endif()
    if(component IN_LIST segmed_available)
      list(APPEND kept ${source})
    else()
      file(RELATIVE_PATH name ${PROJECT_SOURCE_DIR} ${source})
      message(STATUS "segmed: ${name} is left out: it needs segmed::${component}")
    endif()
  endforeach()
  set(${list} ${kept} PARENT_SCOPE)
endfunction()

# segmed_program(name [HEADER_ONLY] sources...) links all components of the processor, MPI where a
# source includes it, and the compiled kernels unless HEADER_ONLY.
function(segmed_program name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "HEADER_ONLY" "" "")
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  set(linked ${segmed_linked})
  if(ARG_HEADER_ONLY)
    list(REMOVE_ITEM linked segmed::kernels)
  endif()
  foreach(source IN LISTS ARG_UNPARSED_ARGUMENTS)
    segmed_component_of(component ${source})
    if(component STREQUAL "mpi")
      list(APPEND linked segmed::mpi)
      break()
    endif()
  endforeach()
  target_link_libraries(${name} PRIVATE ${linked})
endfunction()
